"""A second scheduler on the port, or on the state, of one that runs: it ends, and says why."""

from __future__ import annotations

from tests.faults.daemons import Daemon
from tests.faults.load import Mix
from tests.faults.run import Run


class Experiment:
    number = 22
    name = "second-scheduler"
    rounds = 3
    quick_rounds = 1

    def possible(self) -> None:
        pass

    def go(self, run: Run) -> None:
        run.start(workers=1, mix=Mix(longest=0.5))
        config = run.cluster.scheduler.file.read_text().partition("\n")[2]
        free = "".join(
            line if not line.startswith("addr") else 'addr = "127.0.0.1:0"\n' for line in config.splitlines(True)
        )
        for number in range(run.setting.rounds):
            run.figures.rounds += 1
            run.load.resume()
            run.fault("a second scheduler")
            for what, text in {"ports": config, "state": free, "database": free}.items():
                second = Daemon("scheduler", f"second-{what}-{number}", run.folder / f"{what}{number}", text)
                state = run.cluster.scheduler.state
                if what == "state":
                    second.file.write_text(f'state_dir = "{state}"\n{text}')
                elif what == "database":
                    if not list(state.glob("*.db")):
                        continue
                    second.file.write_text(
                        f'state_dir = "state"\n{text}[store]\nurl = "sqlite:///{state}/scheduler.db"\n'
                    )
                self._refused(run, second, what)
            run.demand(run.cluster.online(), "E22", "the first one does not serve any more")
            run.converge(run.heal("it has ended"))
        run.verdict()

    @staticmethod
    def _refused(run: Run, second: Daemon, what: str) -> None:
        second.start(wait=False)
        status = second.wait()
        said = second.log.read_text().strip()
        run.demand(status == 1, "E22", f"on the {what} of another: exit status {status}")
        run.demand(said and "Traceback" not in said, "E22", f"on the {what} of another: said {said!r}")
        run.demand(len(said.splitlines()) == 1, "E22", f"on the {what} of another: said more than a line: {said!r}")
        if not run.figures.notes or what not in str(run.figures.notes):
            run.note("on the {what} of another: {said}", what=what, said=said.splitlines()[-1] if said else "")
