"""A sweep's commands on a scripted scheduler."""

import contextlib
import random
import threading

import yaml

from moe_study.launch.slurm.driver import Driver, Watch
from moe_study.launch.slurm.settings import SlurmSettings
from moe_study.launch.slurm.submit import Sender
from moe_study.launch.slurm.survey import look
from moe_study.runs.folder import RunFolder, State
from moe_study.runs.job_records import read_submission, read_submissions
from moe_study.sweeps.conf import command_settings
from moe_study.sweeps.plan import TO_START
from tests.launch.driving import ROOT, planned, pool_settings
from tests.launch.slurm import scripted
from tests.launch.slurm.scripted import DriverKilled, ScriptedScheduler

MANY_ROUNDS = 300  # of one command, for a handful of runs


def slurm_settings(runs_per_job=1, **changes):
    """The committed defaults, with `changes`."""
    committed = yaml.safe_load((ROOT / "conf" / "hydra" / "launcher" / "slurm.yaml").read_text())
    plain = {name: value for name, value in committed.items() if not name.startswith("_")}
    plain |= {"warning": 60, "poll": 0.001, **changes}
    return SlurmSettings.of(plain, command_settings()["cluster"], runs_per_job)


class World:
    """Some people with their commands, and a cluster; whatever nobody should do or say is an AssertionError."""

    def __init__(self, runs_dir, seed, runs=4, **scheduler):
        self.draw = random.Random(seed)
        self.runs_dir, self.runs = runs_dir, runs
        self.scheduler = ScriptedScheduler(on_arrival=self._judge_arrival, **scheduler)
        self.drivers = []
        self.sent_by = []  # pairs of a command and the key of a run that it has sent

    def command(self, **settings):
        """A new command of the sweep, up to before its first round."""
        runs = planned(self.runs_dir, range(self.runs))
        now = look(read_submissions(self.runs_dir), self.scheduler, "scripted")
        missing = [run for run in runs if now.state_of(run.folder) in TO_START]
        sender = Sender(
            self.scheduler, self.scheduler.limits(), slurm_settings(**settings), pool_settings(), scripted.JOB
        )
        return Driver(runs, missing, sender, Watch(), sleep=lambda seconds: None)

    def act(self):
        """One thing, any of those that can happen now."""
        scheduler, draw = self.scheduler, self.draw
        running, waiting = scheduler.in_state("RUNNING"), scheduler.in_state("PENDING")
        events = []
        if waiting:
            events += [(4, lambda: self.start(draw.choice(waiting)))]
            events += [(1, lambda: scheduler.stop(draw.choice(waiting), "CANCELLED"))]
        if running:
            one = draw.choice(running)
            events += [
                (3, lambda: scheduler.finish(one)),
                (1, lambda: scheduler.kill(one)),
                (1, lambda: scheduler.kill(one, "PENDING")),
                (1, lambda: self.stop(one, draw.choice(["CANCELLED", "PENDING"]))),
                (1, lambda: scheduler.lose(one, draw.choice(["NODE_FAIL", "PENDING"]))),
            ]
            events += [(1, lambda: self.warn(one))] if not scheduler.silent else []
        if scheduler.cut_off:
            word = draw.choice(["finish", "die"])
            events += [(0.5, lambda: scheduler.end_cut_off(scheduler.cut_off[0], word))]
        if scheduler.late:
            events += [(2, scheduler.arrive)]
        if len(self.drivers) < 2:
            events += [(2, lambda: self.drivers.append(self.command()))]
        if self.drivers:
            events += [(4, self.round), (1, lambda: self.drivers.pop(0))]
        if len(self.drivers) == 2 and not scheduler.silent:
            events += [(2, self.two_rounds_at_once)]
        trouble = ["killed before", "killed after", "answer lost", "late"]
        events += [
            (1, lambda: setattr(scheduler, "silent", not scheduler.silent)),
            (0.5, lambda: setattr(scheduler, "unlisted", draw.choice([None, "A_STATE_OF_NEXT_YEAR"]))),
            (1, lambda: setattr(scheduler, "on_submit", draw.choice(trouble))),
            (0.3, scheduler.rebuild),
        ]
        weights, what = zip(*events, strict=True)
        draw.choices(what, weights)[0]()

    # What can happen, and what must follow ---------------------------------------------------------------------

    def start(self, task):
        (key,) = keys_of(task)
        needless = self._is_done(key) or key in scripted.in_training
        self.scheduler.start(task)
        expected = "COMPLETED" if needless else "RUNNING"
        assert task.state == expected, f"the job of {key} is {task.state} after its start, not {expected}"

    def stop(self, task, state):
        self.scheduler.stop(task, state)
        assert task.state == state

    def warn(self, task):
        self.scheduler.warn(task)
        assert task.state == "PENDING", "a warned job has not requeued itself"

    def round(self):
        driver = self.draw.choice(self.drivers)
        try:
            with self._sending(driver):
                _, states, _ = driver.round()
        except DriverKilled:
            self.drivers.remove(driver)
        else:
            self._judge_words(states)

    def two_rounds_at_once(self):
        """The second command looks and sends while the first one looks: it would, if it did not have to wait."""
        first, second = self.drivers
        failures = []

        def look_and_send(driver):
            try:
                driver.round()
            except DriverKilled:
                self.drivers.remove(driver)
            except BaseException as error:
                failures.append(error)

        other = threading.Thread(target=look_and_send, args=(second,), daemon=True)

        def begin():
            other.start()
            other.join(0.05)

        self.scheduler.meanwhile = begin
        look_and_send(first)
        other.join(60)
        for failure in failures:
            raise failure

    def heal(self):
        """From here on nothing bad happens, and one command brings every run to its end."""
        scheduler = self.scheduler
        scheduler.silent, scheduler.on_submit, scheduler.unlisted = False, "", None
        scheduler.arrive()
        driver = self.command()
        rounds = iter(range(MANY_ROUNDS))

        def sleep(seconds):
            assert next(rounds, None) is not None, "the command does not end"
            self.work()

        driver.sleep = sleep
        with self._sending(driver):
            driver.drive()
        left = [run.key for run in driver.runs if run.folder.state() is not State.DONE]
        assert not left, f"the command has ended without {left}"

    def work(self):
        """Let the cluster do one thing."""
        if self.scheduler.cut_off:
            self.scheduler.end_cut_off(self.scheduler.cut_off[0], "finish")
        elif running := self.scheduler.in_state("RUNNING"):
            self.scheduler.finish(self.draw.choice(running))
        elif waiting := self.scheduler.in_state("PENDING"):
            self.start(self.draw.choice(waiting))

    # The judge, who sees all ------------------------------------------------------------------------------------

    def _judge_arrival(self, tasks):
        """Of jobs that the scheduler takes: each is the only one of its run, which still needs one."""
        for task in tasks:
            for key in keys_of(task):
                assert not self._has_job(key), f"{key} has two jobs"
                assert not self._is_done(key) or self.scheduler.unanswered, f"{key} is done, and was sent"
                if self._sender is not None:
                    assert (self._sender, key) not in self.sent_by, f"{key} was sent twice by one command"
                    self.sent_by.append((self._sender, key))

    def _judge_words(self, states):
        """Of a command: a run with a job that lives, or may, is under way, and no other is."""
        unknown = {
            key
            for submission in read_submissions(self.runs_dir)
            if submission.name in self.scheduler.unanswered and submission.job_id is None
            for key in submission.keys
        }
        for key, state in states.items():
            if key in unknown:
                continue
            if self._has_job(key):
                assert state in (State.QUEUED, State.RUNNING, State.DONE), f"{key} has a job, and is {state}"
            elif state in (State.QUEUED, State.RUNNING) and not self.scheduler.silent:
                assert key in scripted.in_training, f"{key} has no job, and is {state}"

    def _has_job(self, key):
        living = [*self.scheduler.in_state("PENDING"), *self.scheduler.in_state("RUNNING")]
        return any(key in keys_of(task) for task in living)

    def _is_done(self, key):
        return RunFolder(self.runs_dir / key).state() is State.DONE

    _sender = None

    @contextlib.contextmanager
    def _sending(self, driver):
        self._sender = driver
        try:
            yield
        finally:
            self._sender = None


def keys_of(task):
    return read_submission(task.folder).tasks[task.index]
