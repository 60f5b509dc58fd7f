"""Tokens: made, used, expired, revoked."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from scheduler.cluster.saving import UNSAVED_MAX_SECONDS
from scheduler.errors import Conflict, Invalid, NameTaken, NotFound, Refused, StoreFailed, Unauthenticated
from scheduler.model import Job, JobState
from scheduler.security.interfaces import ITokens, NewToken
from scheduler.security.principals import Principal, Scope
from scheduler.security.token import Token
from scheduler.security.token_text import digest_of, new_text
from scheduler.security.tokens import MAX_TOKENS, Tokens
from scheduler.terms import QueueTerms, Retry, Target
from tests.house import EPOCH, House, result_of
from tests.unit.cluster.values import a_job, a_worker

ROOT = Principal("local", "root", Scope.ADMIN)
CI = NewToken("ci", Scope.RUN)


def queued(job_id: str, created_by: str) -> Job:
    """A job that waits for a slot for an hour."""
    terms = QueueTerms(3600.0)
    return a_job(job_id, JobState.QUEUED, None, created_at=EPOCH, created_by=created_by, promised=True, terms=terms)


class TokenCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()
        self.tokens = self.house.parts.tokens

    def make(self, by: Principal = ROOT, **facts: Any) -> tuple[Token, str]:
        made: tuple[Token, str] = result_of(
            self.tokens.create(by, NewToken(**{"name": "ci", "scope": Scope.RUN, **facts}))
        )
        return made

    def refusal(self, text: str) -> str:
        """Why a request with this token is refused."""
        with self.assertRaises(Unauthenticated) as caught:
            self.tokens.principal(text)
        return str(caught.exception)

    def revoke(self, token: Token, by: Principal = ROOT) -> None:
        result_of(self.tokens.revoke(by, token.id))


class UseTests(TokenCase):
    def test_interface(self) -> None:
        self.assertTrue(verifyClass(ITokens, Tokens))
        self.assertTrue(verifyObject(ITokens, self.tokens))

    def test_used(self) -> None:
        """A request with a token has a principal with the token's name, scope and reach."""
        token, text = self.make(reach={"zone": "a"})
        self.assertEqual(
            self.tokens.principal(text), Principal("token", "ci", Scope.RUN, {"zone": "a"}, token_id=token.id)
        )

    def test_kept(self) -> None:
        """Only the digest is kept, and no representation shows it; the next process knows the token."""
        token, text = self.make()
        self.assertEqual(self.house.store.holding().tokens, (token,))
        self.assertEqual(token.digest, digest_of(text))
        for shown in (repr(token), repr(self.house.store.holding())):
            self.assertNotIn(token.digest, shown)
            self.assertNotIn(text.split("_")[2], shown)
        self.house.restart()
        self.assertEqual(str(self.house.parts.tokens.principal(text)), "token:ci")

    def test_refused_alike(self) -> None:
        """A token that is unknown, has another secret, or was revoked, is refused with the same words."""
        token, text = self.make()
        unknown, wrong = new_text("unknown2345"), new_text(token.id)
        self.revoke(token)
        self.assertEqual(len({self.refusal(each) for each in (unknown, wrong, text)}), 1)

    def test_wrong_secret(self) -> None:
        """The id alone admits nobody."""
        token, _ = self.make()
        self.refusal(new_text(token.id))

    def test_expired(self) -> None:
        """A token is valid until it expires; that it has expired is told only to those who have its secret."""
        token, text = self.make(expires_at=EPOCH + 60)
        self.house.clock.advance(59)
        self.tokens.principal(text)
        self.house.clock.advance(1)
        self.assertEqual(self.refusal(text), "the token expired at 2023-11-14T22:14:20Z")
        self.assertNotIn("expired", self.refusal(new_text(token.id)))
        self.assertEqual(self.tokens.valid, ())

    def test_last_use(self) -> None:
        """The last use is noted to the minute; no request waits for the store."""
        token, text = self.make()
        self.assertIsNone(token.last_used_at)
        self.house.store.held = True
        self.tokens.principal(text)
        self.assertEqual(self.tokens.get(ROOT, token.id).last_used_at, EPOCH)
        self.assertEqual(self.house.store.saves, [])
        self.house.clock.advance(UNSAVED_MAX_SECONDS)
        self.house.store.commit()
        self.house.clock.advance(59 - UNSAVED_MAX_SECONDS)
        self.tokens.principal(text)
        self.house.clock.advance(1)
        self.assertEqual((self.tokens.get(ROOT, token.id).last_used_at, self.house.store.saves), (EPOCH, []))
        self.tokens.principal(text)
        self.assertEqual(self.tokens.get(ROOT, token.id).last_used_at, EPOCH + 60)


class MakingTests(TokenCase):
    def fails(self, kind: type[Exception], by: Principal = ROOT, **facts: Any) -> str:
        with self.assertRaises(kind) as caught:
            self.make(by, **facts)
        return str(caught.exception)

    def test_names(self) -> None:
        """A name has 1 to 64 letters, digits, dots, underscores and hyphens."""
        for name in ("", "a" * 65, "a b", "a:b", "é", "a\n", "a/b"):
            self.fails(Invalid, name=name)
        self.make(name="A.b_c-9" + "a" * 57)

    def test_taken(self) -> None:
        """Valid tokens have different names, also while one is being saved."""
        self.house.store.held = True
        first = self.tokens.create(ROOT, CI)
        self.failureResultOf(self.tokens.create(ROOT, CI), NameTaken)
        self.house.store.commit_all()
        token, _ = self.successResultOf(first)
        self.assertIn("'ci'", self.fails(NameTaken))
        self.house.store.held = False
        self.revoke(token)
        self.make()

    def test_replaces_an_expired_one(self) -> None:
        """The name of an expired token can be used again, and the expired token is gone then."""
        self.make(expires_at=EPOCH + 1)
        self.make(name="other", expires_at=EPOCH + 1)
        self.house.clock.advance(2)
        token, _ = self.make()
        self.assertEqual([each.name for each in self.tokens.all(ROOT)], ["ci", "other"])
        self.assertIn(token, self.house.store.holding().tokens)
        self.assertEqual(len(self.house.store.holding().tokens), 2)

    def test_limit(self) -> None:
        """There are at most so many valid tokens; expired ones give way."""
        for number in range(MAX_TOKENS - 1):
            self.make(name=f"t-{number}")
        self.make(name="old", expires_at=EPOCH + 1)
        self.assertIn(str(MAX_TOKENS), self.fails(Conflict))
        self.house.clock.advance(2)
        self.make()
        self.assertEqual(len(self.tokens.all(ROOT)), MAX_TOKENS)
        self.assertNotIn("old", [token.name for token in self.tokens.all(ROOT)])

    def test_store_fails(self) -> None:
        """A token that can't be saved does not exist, and its name is free."""
        self.house.store.problem = "disk full"
        self.fails(StoreFailed)
        self.assertEqual(self.tokens.all(ROOT), ())
        self.house.store.problem = ""
        self.house.clock.advance(10)
        self.make()

    def test_within_its_maker(self) -> None:
        """A token that a token makes reaches no further, and may do no more, than the token that makes it."""
        maker = Principal("token", "boss", Scope.ADMIN, {"zone": "a"}, "boss2345")
        wide, _ = self.make(maker)
        narrow, _ = self.make(maker, name="narrow", reach={"gpu": "1", "zone": "a"})
        self.assertEqual(dict(wide.reach), {"zone": "a"})
        self.assertEqual(dict(narrow.reach), {"zone": "a", "gpu": "1"})
        self.assertEqual(wide.created_by, "token:boss")
        self.assertIn("zone", self.fails(Refused, maker, name="b", reach={"zone": "b"}))
        self.fails(Refused, Principal("token", "ci", Scope.RUN), name="b", scope=Scope.ADMIN)
        self.assertEqual(len(self.tokens.all(ROOT)), 2)

    def test_beyond_reach(self) -> None:
        """A token with a reach neither sees nor revokes tokens that reach further."""
        maker = Principal("token", "boss", Scope.ADMIN, {"zone": "a"}, "boss2345")
        everywhere, _ = self.make()
        elsewhere, _ = self.make(name="b", reach={"zone": "b"})
        own, _ = self.make(maker, name="own")
        self.assertEqual(self.tokens.all(maker), (own,))
        for token in (everywhere, elsewhere):
            self.assertRaises(NotFound, self.tokens.get, maker, token.id)
            self.assertRaises(NotFound, self.tokens.revoke, maker, token.id)
        self.assertEqual(len(self.tokens.all(ROOT)), 3)


class RevocationTests(TokenCase):
    def setUp(self) -> None:
        super().setUp()
        self.ended: list[str] = []
        self.tokens.watch(self.ended.append)
        self.house.add(a_worker(slots=1), a_job("runs", created_by="token:ci"))

    def test_at_once(self) -> None:
        """A revoked token is refused, and watchers are told, before the store has answered."""
        token, text = self.make()
        self.house.store.held = True
        revoked = self.tokens.revoke(ROOT, token.id)
        self.refusal(text)
        self.assertEqual(self.ended, [token.id])
        self.assertNoResult(revoked)
        self.house.store.commit_all()
        self.successResultOf(revoked)
        self.assertRaises(NotFound, self.tokens.revoke, ROOT, token.id)
        self.house.restart()
        self.assertEqual(self.house.parts.tokens.all(ROOT), ())

    def test_store_fails(self) -> None:
        """A revocation holds although the store fails. It is saved, and its queued jobs are stopped, later."""
        token, text = self.make()
        self.house.add(queued("queued", "token:ci"))
        self.house.store.problem = "disk full"
        self.assertRaises(StoreFailed, self.revoke, token)
        self.refusal(text)
        self.house.store.problem = ""
        self.house.clock.advance(10)
        self.assertEqual(self.house.store.holding().tokens, ())
        self.tokens.look()
        self.house.settle()
        self.assertEqual(self.house.job("queued").state, JobState.STOPPED)

    def test_queued_jobs(self) -> None:
        """The queued jobs of the token are stopped, with the reason; those that run, and those of others, go on."""
        token, _ = self.make()
        self.house.add(
            queued("queued", "token:ci"),
            queued("other", "token:ci2"),
        )
        self.revoke(token)
        job = self.house.job("queued")
        self.assertEqual((job.state, job.reason), (JobState.STOPPED, "token revoked"))
        self.assertEqual(self.house.job("runs").state, JobState.RUNNING)
        self.assertEqual(self.house.job("other").state, JobState.QUEUED)
        self.assertIsNone(self.house.job("runs").stop_requested_at)

    def test_attempts(self) -> None:
        """A job that runs is not tried again when it fails; those of others are."""
        token, _ = self.make()
        for who in ("token:ci", "token:other"):
            terms = QueueTerms(3600.0, retry=Retry(3, 60.0))
            job = a_job(f"tried by {who}", created_by=who, target=Target(worker="w1"), terms=terms)
            self.house.add(job)
        self.revoke(token)
        for who, attempts in (("token:ci", 1), ("token:other", 2)):
            job = self.house.job(f"tried by {who}")
            self.assertEqual(job.state, JobState.RUNNING)
            self.house.know(evolve(job, state=JobState.FAILED, finished_at=EPOCH))
            self.house.settle()
            self.assertEqual(len(list(self.house.parts.ledger.registry.jobs.attempts(job.id))), attempts, who)

    def test_a_start_that_fails(self) -> None:
        """A job that was being started when its token was revoked, and has to wait again, is stopped."""
        token, _ = self.make()
        starting = evolve(queued("starting", "token:ci"), state=JobState.STARTING)
        self.house.know(starting)
        self.revoke(token)
        self.house.know(evolve(starting, state=JobState.QUEUED))
        self.tokens.look()
        self.house.settle()
        self.assertEqual(self.house.job("starting").state, JobState.STOPPED)

    def test_a_job_on_its_way(self) -> None:
        """A job that is being saved when its token is revoked is stopped, too."""
        token, _ = self.make()
        self.house.store.held = True
        self.house.parts.ledger.decide(queued("late", "token:ci"))
        revoked = self.tokens.revoke(ROOT, token.id)
        self.house.store.commit_all()
        self.successResultOf(revoked)
        self.assertEqual(self.house.job("late").state, JobState.STOPPED)

    def test_killed_in_between(self) -> None:
        """Queued jobs of a token that was revoked when the scheduler was killed are stopped by the next start."""
        token, _ = self.make()
        self.make(name="other")
        self.house.add(queued("queued", "token:ci"), queued("mine", "local:root"), queued("other", "token:other"))
        self.house.store.held = True
        self.tokens.revoke(ROOT, token.id)
        self.house.store.commit()
        self.house.restart()
        self.house.store.commit_all()
        self.house.store.held = False
        job = self.house.job("queued")
        self.assertEqual((job.state, job.reason), (JobState.STOPPED, "token revoked"))
        for job_id in ("mine", "other"):
            self.assertEqual(self.house.job(job_id).state, JobState.QUEUED)

    def test_expired_meanwhile(self) -> None:
        """Watchers are told of tokens that expire; jobs of these stay queued."""
        token, _ = self.make(expires_at=EPOCH + 60)
        self.make(name="other")
        self.house.add(queued("queued", "token:ci"))
        self.tokens.look()
        self.assertEqual(self.ended, [])
        self.house.clock.advance(60)
        self.tokens.look()
        self.assertEqual(self.ended, [token.id])
        self.assertEqual(self.house.job("queued").state, JobState.QUEUED)
