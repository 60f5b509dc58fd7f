"""A second scheduler with the port, or the state, of a running one: it ends, and says why."""

from __future__ import annotations

import re

from tests.faults.daemons import Daemon
from tests.faults.mix import Mix
from tests.faults.run import Plan, Run


class Experiment(Plan):
    number = 22
    name = "second-scheduler"
    rounds = 3
    quick_rounds = 1

    def go(self, run: Run) -> None:
        run.start(workers=1, mix=Mix(longest=0.5))
        first = run.cluster.scheduler
        config = first.file.read_text().partition("\n")[2]
        elsewhere = re.sub(r'addr = ".*"', 'addr = "127.0.0.1:0"', config)
        seconds = {"ports": config, "state": f'state_dir = "{first.state}"\n{elsewhere}'}
        for database in first.state.glob("*.db"):
            seconds["database"] = f'{elsewhere}[store]\nurl = "sqlite:///{database}"\n'
        for number in run.rounds():
            run.load.resume()
            run.fault("a second scheduler")
            for what, text in seconds.items():
                second = Daemon("scheduler", f"second-{what}", run.folder / f"{what}{number}", text)
                if what == "state":
                    second.file.write_text(text)
                said = self._refused(run, second, what)
                if number == 0:
                    run.note(f"on the {what} of another: {said}")
            run.demand(run.cluster.online(), "E22", "the first one does not serve any more")
            run.converge(run.heal("it has ended"))
        run.verdict()

    @staticmethod
    def _refused(run: Run, second: Daemon, what: str) -> str:
        """The text of its refusal."""
        second.start(wait=False)
        status = second.wait()
        said = second.log.read_text().strip()
        run.demand(status == 1, "E22", f"on the {what} of another: exit status {status}")
        run.demand(len(said.splitlines()) == 1, "E22", f"on the {what} of another: said {said!r}, not one line")
        return said.removeprefix(f"{second.file}: ")
