"""The training loop: from the newest checkpoint to the last step."""

import collections
import contextlib
import functools
import time
from typing import Any, NamedTuple, NoReturn

import jax

from gensupcon_jax import signals
from gensupcon_jax.cluster import processes, sharding
from gensupcon_jax.cluster.stopping import StopRequest
from gensupcon_jax.cluster.watchdog import Watchdog
from gensupcon_jax.data.input_pipeline import Prefetched
from gensupcon_jax.errors import RunStopped, UserError
from gensupcon_jax.method.state import TrainState, abstract, saved_fields
from gensupcon_jax.run import diverged, divergence
from gensupcon_jax.run.account import Account
from gensupcon_jax.run.assemble import Lengths
from gensupcon_jax.run.log import TrainingLog
from gensupcon_jax.run.profiling import Profiler
from gensupcon_jax.run.record import best_so_far, changed_versions, resumed_record
from gensupcon_jax.run.run import Run, say
from gensupcon_jax.run.step_clock import StepClock
from gensupcon_jax.run.validation import is_validated, validate
from gensupcon_jax.score_names import COLUMN_WORDS
from gensupcon_jax.slow import said_if_slow
from gensupcon_jax.store import tensorboard_writer, workdir
from gensupcon_jax.store.checkpoint import Checkpoints

# More than 32 unawaited steps with collectives hang on several CPU devices; 2 keep an accelerator busy.
_STEPS_IN_FLIGHT = 2
_UNEVALUATED = "unevaluated"  # in a checkpoint's record: the row of its step, as far as it goes without the evaluation


class Supervision(NamedTuple):
    """What can end a run early: a signal, or work that takes too long; and what watches where its time goes.

    profile: the steps to profile.
    """

    stop_request: StopRequest
    watchdog: Watchdog
    account: Account
    profile: range = range(0)


class Due(NamedTuple):
    """What is to be done after a step."""

    stops: bool
    evaluates: bool
    saves: bool
    logs: bool


def due_after(step: int, lengths: Lengths, log_steps: int, *, stops: bool) -> Due:
    """What is to be done after this step; the last one is evaluated and saved, and what is saved is logged."""
    is_last = step == lengths.total_steps
    evaluates = is_last or (lengths.evaluate_steps > 0 and step % lengths.evaluate_steps == 0)
    saves = stops or is_last or step % lengths.checkpoint_steps == 0
    return Due(stops, evaluates, saves, logs=saves or step % log_steps == 0 or step == 1)


class Trained(NamedTuple):
    """The state after the last step, and the record in its checkpoint."""

    state: TrainState
    record: dict[str, Any]


def train(run: Run, record: dict[str, Any], chance_loss: float, supervision: Supervision) -> Trained:
    """Train from the newest checkpoint in the workdir, or from the start, to the last step.

    record: of a run that starts.  chance_loss: that of a network that has learned nothing.
    Raises RunStopped if a signal ended it earlier, and UserError if it diverged; the state is saved in both cases.
    """
    with contextlib.ExitStack() as opened:
        loop = _Loop(run, record, chance_loss, supervision, opened)
        stop_request, watchdog = supervision.stop_request, supervision.watchdog
        stops, begin = False, loop.step
        with contextlib.ExitStack() as saving, supervision.account.phase("step"):
            if loop.is_unevaluated:
                watchdog.watch("evaluation", f"the evaluation after step {loop.step}")
                loop.evaluate_resumed(stop_request)
            watchdog.watch("step", f"step {loop.step + 1}")
            batches = opened.enter_context(Prefetched(run.batches(loop.step, run.lengths.total_steps)))
            for step, batch in enumerate(loop.clock.waiting(batches), start=loop.step + 1):
                if loop.has_diverged():
                    break
                loop.take_step(batch)
                if step == begin + 1:  # nothing was unsaved until here: a signal ends the run also while XLA compiles
                    saving.enter_context(stop_request.deferred())
                stops = stop_request.is_due()  # read once: a signal that arrives later waits for the next step
                due = due_after(step, run.lengths, run.config.log_steps, stops=stops)
                if any(due) and not loop.fetch_metrics():
                    break
                if due.logs:
                    loop.log.add_training(step, loop.metrics, batches.waited_seconds, loop.clock.slowest_process())
                if due.evaluates:
                    watchdog.watch("evaluation", f"the evaluation after step {step}")
                    is_best = loop.evaluate(stop_request)
                    if is_best is None:  # a signal ended it
                        watchdog.watch("saving", f"saving step {step}")
                        loop.save_unevaluated()
                        stops = True
                        break
                if any(due):
                    watchdog.watch("saving", f"saving step {step}")
                    loop.log.write(step, force=due.evaluates)
                if due.saves or (due.evaluates and is_best):
                    loop.save()
                supervision.account.reach(step)
                watchdog.watch("step", f"step {step + 1}")
                if stops:
                    break
            if loop.diverged:
                watchdog.watch("saving", "keeping the step that went wrong")
                loop.refuse_divergence()
            watchdog.watch("saving", f"the last save, of step {loop.step},")
            saving.enter_context(stop_request.deferred())  # of a run without steps too
            loop.finish()
            _leave_if_asked(run, stop_request, loop.step, stops)
    return Trained(loop.state, loop.record)


class _Loop:
    """What changes while a run trains: the state, its record, and the metrics of the steps in flight."""

    def __init__(
        self,
        run: Run,
        record: dict[str, Any],
        chance_loss: float,
        supervision: Supervision,
        opened: contextlib.ExitStack,
    ):
        self.run, self.record = run, record
        self._account = account = supervision.account
        with said_if_slow("compiling the initial state", say):
            self.state = run.initial_state()
        self.step, self.diverged = 0, False
        self.metrics: dict[str, Any] = {}
        self._in_flight: collections.deque[dict[str, Any]] = collections.deque()
        self._seed_key = sharding.place(run.key("step"), sharding.replicated(run.mesh))
        advisor = run.advisor(self.state, chance_loss)
        self._checkpoints = Checkpoints(run.folder / workdir.CHECKPOINTS, keep=run.config.checkpoint.keep)
        opened.callback(self._checkpoints.settle)
        supervision.watchdog.watch("saving", "reading the newest checkpoint")
        with account.phase("save"):
            restored = self._checkpoints.restore_newest(abstract(saved_fields(self.state)))
        if restored is not None:
            self.step, self.state = restored.step, self.state.replace(**restored.fields)
            self.record = resumed_record(record, restored.record, run.folder)
        self._num_skipped, self._num_spikes = int(self.state.skipped_steps), _num_spikes(self.state)
        _check_num_skipped(self._num_skipped, run.config.optimizer.max_skipped_steps)
        # Where steps may be skipped, each is waited for, as the state before it is only there until the next one.
        self._most_in_flight = 1 if run.config.optimizer.max_skipped_steps else _STEPS_IN_FLIGHT
        warnings = [] if restored is None else changed_versions(record, restored.record)
        self._saved_record = {} if restored is None else restored.record
        self.log = TrainingLog(run, advisor, self.step, self._saved_record.get(_UNEVALUATED))
        account.begin_training(self.step)
        self.clock = opened.enter_context(StepClock(account))
        self._profiler = opened.enter_context(Profiler(supervision.profile, run.folder, self.log.say))
        if not tensorboard_writer.is_available():
            self.log.say(tensorboard_writer.LEFT_OUT)
        for warning in warnings:
            self.log.note(warning)
        self.log.say(opening(run, self.state, self.step, chance_loss))
        if run.choices is not None:
            said = run.choices.sentence()
            self.log.note(said) if self.step == 0 else self.log.say(said)

    def has_diverged(self) -> bool:
        """Whether the oldest step in flight diverged; waits for it when too many are in flight."""
        if len(self._in_flight) == self._most_in_flight:
            metrics = self._in_flight.popleft()
            self.diverged = self.diverged or bool(metrics["diverged"])
            if self._most_in_flight == 1:
                self._keep_if_skipped(metrics)
        return self.diverged

    def take_step(self, batch: Any) -> None:
        """One training step: the only place where the state of a run changes."""
        sized = self.run.parts.at(self.step)
        if self.step == sized.steps.start > 0:
            self.log.say(f"from step {self.step + 1} on views have {sized.size} x {sized.size} pixels")
        is_compiled = not self.metrics or self.step == sized.steps.start
        began = time.monotonic()
        with contextlib.ExitStack() as compiling, self._profiler.step(self.step + 1):
            if is_compiled:
                kept = "compiling the training step, which is kept for the next start"
                compiling.enter_context(said_if_slow(kept, self.log.say))
                compiling.enter_context(self._account.phase("compile"))  # a kill may end it, which jax would not say
            self.state, self.metrics = sized.train_step_fn(self.state, self.run.frozen, batch, self._seed_key)
        self._in_flight.append(self.metrics)
        self.step += 1
        self.clock.sent(self.metrics, began, is_timed=not is_compiled)
        if self._profiler.is_last(self.step):
            with self.clock.paused("other"):
                self._profiler.finish(self.metrics)
        self.log.advance()

    def fetch_metrics(self) -> bool:
        """Wait for the metrics of this step, as numbers; False if it diverged."""
        self.metrics = {name: float(value) for name, value in jax.device_get(self.metrics).items()}
        self.diverged = bool(self.metrics.pop("diverged"))
        self._keep_if_skipped(self.metrics)
        return not self.diverged

    def evaluate(self, stop_request: StopRequest) -> bool | None:
        """Evaluate the state on the validation split; returns whether it is the best so far, None where a signal ended it."""
        validate_fn = functools.partial(validate, self.run, self.state)
        with self.log.timer.paused(), self.clock.paused("evaluation"):
            if is_validated(self.run):
                validation = stop_request.abandonable(validate_fn, self._save_last)
                if validation is None:
                    return None
            else:
                validation = validate_fn()
            # All processes use the scores of process 0: they decide which checkpoint is kept.
            row, notes = processes.share([*validation])
        self.log.add_validation(row, notes)
        earlier = self.record["best"]
        self.record["best"] = best_so_far(earlier, row, self.step)
        return self.record["best"] is not earlier

    @property
    def is_unevaluated(self) -> bool:
        """Whether the run resumes at a step that was saved without its evaluation, which a signal ended."""
        return _UNEVALUATED in self._saved_record

    def evaluate_resumed(self, stop_request: StopRequest) -> None:
        """Evaluate that step, and write its row; until its record says so, each resumption does it again."""
        self.evaluate(stop_request)
        self.log.write(self.step, force=True)
        self.log.flush()
        del self._saved_record[_UNEVALUATED]
        with self.clock.paused("save"):
            self._checkpoints.replace_record(self.step, self._saved_record | {"best": self.record["best"]})

    def save(self) -> None:
        """Start to save the state; training waits for a part of it."""
        self._save(self.record)

    def save_unevaluated(self) -> None:
        """Start to save the state, and its row, which the run writes when it resumes and has evaluated the state."""
        self._save(self.record | {_UNEVALUATED: self.log.row})
        self._account.reach(self.step)

    def _save_last(self) -> str:
        self.save_unevaluated()
        self._checkpoints.close()
        self._account.write()
        return _saved(self.run, self.step)

    def _save(self, record: dict[str, Any]) -> None:
        self.log.flush()
        with self.clock.paused("save"):
            self.log.timer.stall_seconds += self._checkpoints.save(self.step, saved_fields(self.state), record)

    def finish(self) -> None:
        """Wait until everything is on disk."""
        if self.run.lengths.total_steps == 0:
            # An evaluated encoder can be exported, probed or used as a teacher.
            self._checkpoints.save(0, saved_fields(self.state), self.record)
        with self.clock.paused("save"):
            self._checkpoints.close()
        self.log.close()

    def refuse_divergence(self) -> NoReturn:
        """Save the last good state, keep the step, and raise a UserError that explains the divergence, also on a full disk."""
        self.log.close_progress()
        run = self.run
        # The counts are those before the step, so that a restart tries the step again.
        why, state = self._before_skip(has_diverged=True)
        good_step, not_saved = int(state.step), ""
        try:
            self.log.flush()
            self._checkpoints.save(good_step, saved_fields(state), self.record)
        except UserError as error:
            not_saved = str(error)
        content = diverged.content_of_step(run, state, why)
        not_kept = diverged.keep_step(run.folder, content, is_last=True)  # before the look, which compiles for long
        (batch,) = run.batches(good_step, good_step + 1)
        step = divergence.step_of(
            run.config, run.data, run.lengths, run.teacher, run.parts.at(good_step).view_fn, run.mesh
        )
        looked = divergence.looked_or_reason(step, state, run.frozen, batch, self._seed_key)
        if not not_kept and not isinstance(
            looked, str
        ):  # where this fails, the message has it, and the file is as before
            diverged.keep_step(run.folder, diverged.with_found(content, looked), is_last=True)
        try:
            self._checkpoints.close()
        except UserError as error:
            not_saved = not_saved or str(error)
        found = divergence.message(why, looked, state, run.config.objective)
        raise UserError(f"{found} {divergence.where_it_is(good_step, run.folder, not_saved, not_kept)}")

    def _before_skip(self, *, has_diverged: bool) -> tuple[str, TrainState]:
        """Why the last step was skipped, and the state before it."""
        num_spikes = _num_spikes(self.state)
        why = diverged.SPIKE if num_spikes > self._num_spikes else diverged.NOT_FINITE
        earlier, self._num_spikes = self._num_spikes, num_spikes
        return why, diverged.state_before(self.state, earlier, has_diverged=has_diverged)

    def _keep_if_skipped(self, metrics: dict[str, Any]) -> None:
        """Keep the step whose metrics these are if it was skipped; the state is still the one after it."""
        num_skipped = int(metrics["skipped_steps"])
        if num_skipped == self._num_skipped or self.diverged:
            return
        self._num_skipped = num_skipped
        why, state = self._before_skip(has_diverged=False)
        not_kept = diverged.keep_step(self.run.folder, diverged.content_of_step(self.run, state, why), is_last=False)
        kept = not_kept or f"gensupcon replay {self.run.folder} --step {self.step} says more"
        allowed = self.run.config.optimizer.max_skipped_steps
        self.log.note(
            f"step {self.step} was skipped ({why}; {num_skipped} of at most {allowed}, optimizer.max_skipped_steps): {kept}"
        )


def _check_num_skipped(num_skipped: int, allowed: int) -> None:
    """UserError where a resumed run has skipped more steps than it now may: its next step would be taken for a bad one."""
    if num_skipped > allowed:
        raise UserError(
            f"optimizer.max_skipped_steps is {allowed}, and this run has already skipped {num_skipped} steps; allowed: "
            f"{num_skipped} or more"
        )


def _num_spikes(state: TrainState) -> int:
    return int(state.spikes["num_spikes"]) if state.spikes else 0


def _leave_if_asked(run: Run, stop_request: StopRequest, step: int, stops: bool) -> None:
    # A signal that arrived after the last step ends the run too: nothing has been evaluated yet.
    if stop_request.is_due_for_any() or stops:
        signals.has_saved(saved := _saved(run, step))  # also where another signal comes from now on
        processes.finish()  # all have saved
        raise RunStopped(f"{stop_request.signal_name}: {saved}")


def _saved(run: Run, step: int) -> str:
    return f"saved step {step} of {run.lengths.total_steps}; the same command resumes from there"


def opening(run: Run, state: TrainState, start_step: int, chance_loss: float) -> str:
    """The first line of a run."""
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    begin = f"resumes at step {start_step} of" if start_step else "trains for"
    return (
        f"{run.folder} {begin} {run.lengths.total_steps} steps ({run.lengths.per_epoch} per epoch): "
        f"{run.dataset.train.num_images} training images of {run.dataset.name}, {_seen(run)}, {_columns(run)}, "
        f"{num_parameters:,} parameters, {run.mesh.size} x {run.mesh.devices.flat[0].device_kind}, "
        f"chance-level loss {chance_loss:.4f}"
    )


def _columns(run: Run) -> str:
    """The classes, the labels, or the bins of values."""
    if not run.dataset.has_labels:
        return "no labels"
    return f"{run.dataset.num_classes} {COLUMN_WORDS[run.dataset.label_kind]}"


def _seen(run: Run) -> str:
    """The size of the images, and the part of each that an evaluation sees."""
    share = run.dataset.center_share
    part = "whole" if share == 1 else f"at the central {share:g}"
    sizes = ", ".join(f"{each.size}" for each in run.parts.sizes)
    views = "" if sizes == f"{run.data.image_size}" else f", views of {sizes}"
    return f"{run.data.image_size} x {run.data.image_size} pixels (evaluated {part}{views})"
