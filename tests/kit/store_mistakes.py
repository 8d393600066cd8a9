"""Mistakes that a task store could have: each is planted into ours, and some test has to notice.

What each does is its name. They reach into the store, and stand in for functions of all kinds.
"""

# ruff: noqa: ARG005, D103, SLF001 - see above
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Raw
from msgspec.structs import replace

from mcp_tasks import jsonio
from mcp_tasks.domain import inputs, status, transitions, variables
from mcp_tasks.errors import (
    InvalidCursorError,
    InvalidTtlError,
    InvalidValueError,
    NotReadyError,
    QuestionKeyError,
    RecordFormatError,
)
from mcp_tasks.storage import keys, memory
from mcp_tasks.store import StoreConfig, creation, listing, payloads, quota, records, task_store


if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from mcp_tasks.domain.record import Failure

    Plant = Callable[[pytest.MonkeyPatch], None]


MISTAKES: dict[str, tuple[Plant, tuple[str, ...]]] = {}
"""By name: what plants it, and the tests that have to notice."""


def noticed_by(*tests: str) -> Callable[[Plant], Plant]:
    """Register a mistake."""

    def register(plant: Plant) -> Plant:
        MISTAKES[plant.__name__] = (plant, tuple(f"test_{test}" for test in tests))
        return plant

    return register


# --- creating and reading ------------------------------------------------------------------------


@noticed_by("a_created_task_can_be_read_by_any_store_at_once")
def forgets_who_created_it(patch: pytest.MonkeyPatch) -> None:
    new: Any = creation.Creation._new
    patch.setattr(creation.Creation, "_new", lambda self, *args: new(self, *args[:-1], None))


@noticed_by("ids_are_unguessable_and_sorted_by_creation")
def counts_ids(patch: pytest.MonkeyPatch) -> None:
    new: Any = creation.new_task_id
    patch.setattr(creation, "new_task_id", lambda now: new(now)[:10] + "0" * 26)


@noticed_by(
    "a_foreign_task_looks_like_none_at_all",
    "no_owner_reaches_another_through_the_shape_of_a_name",
)
def finds_tasks_of_others(patch: pytest.MonkeyPatch) -> None:
    find: Any = records.Records.find

    async def generous(self: Any, owner: str, task_id: str, **options: Any) -> Any:
        for one in (owner, "ada", "a"):
            if found := await find(self, one, task_id, **options):
                return found
        return None

    patch.setattr(records.Records, "find", generous)


@noticed_by("namespaces_do_not_see_one_another")
def ignores_the_namespace(patch: pytest.MonkeyPatch) -> None:
    real: Any = keys.Keys.__init__
    patch.setattr(keys.Keys, "__init__", lambda self, namespace="": real(self, ""))


@noticed_by("an_owner_that_cannot_be_stored_is_refused")
def takes_any_owner(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(creation.Creation, "_refuse_if_full", lambda self, owner: None)


# --- status --------------------------------------------------------------------------------------


@noticed_by("update_status_follows_the_table_and_replaces_the_message")
def keeps_an_old_message(patch: pytest.MonkeyPatch) -> None:
    update: Any = transitions.update

    def keeping(old: Any, *args: Any, message: str | None = None, **options: Any) -> Any:
        return update(old, *args, message=message or old.message, **options)

    patch.setattr(transitions, "update", keeping)


@noticed_by("update_status_to_failed_leaves_an_error_that_can_be_served")
def fails_without_an_error(patch: pytest.MonkeyPatch) -> None:
    fail: Any = transitions.fail
    patch.setattr(transitions, "fail", lambda *a, **k: replace(fail(*a, **k), error=None))


@noticed_by("nothing_about_an_ended_task_changes", "of_many_outcomes_exactly_one_is_taken")
def lets_the_last_outcome_win(patch: pytest.MonkeyPatch) -> None:
    for module in (status, transitions, task_store):
        patch.setattr(module, "check_transition", lambda *_: None)


@noticed_by("the_time_of_the_last_update_never_goes_back")
def believes_the_clock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        transitions, "_moved", lambda old, now, **changes: replace(old, updated_at=now, **changes)
    )


# --- variables -----------------------------------------------------------------------------------


@noticed_by("variables_merge_and_none_removes")
def keeps_none(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(variables, "merge", lambda current, changes: {**current, **changes})


@noticed_by(
    "two_writers_of_different_variables_both_succeed",
    "writers_of_large_variables_do_not_take_them_from_one_another",
)
def replaces_all_variables(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(variables, "merge", lambda current, changes: dict(changes))


@noticed_by("all_variables_together_may_be_as_large_as_the_limit")
def has_no_limit_for_variables(patch: pytest.MonkeyPatch) -> None:
    encode: Any = variables.encode
    patch.setattr(variables, "encode", lambda values, max_bytes: encode(values, max_bytes=10**9))


@noticed_by("a_variable_may_be_as_deep_and_its_strings_as_long_as_the_limit")
def checks_no_variable(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(variables, "check", lambda changes, **limits: None)


# --- outcomes ------------------------------------------------------------------------------------


@noticed_by("a_result_comes_back_as_it_was_even_null")
def takes_null_for_none(patch: pytest.MonkeyPatch) -> None:
    get_result: Any = task_store.TaskStore.get_result

    async def confusing(self: Any, owner: str, task_id: str) -> Any:
        found = await get_result(self, owner, task_id)
        if found is None:
            raise NotReadyError("completed")
        return found

    patch.setattr(task_store.TaskStore, "get_result", confusing)


@noticed_by(
    "a_result_that_cannot_be_stored_leaves_the_task_as_it_was",
    "a_value_over_the_limit_is_refused_and_one_at_it_is_not",
)
def stores_what_it_can(patch: pytest.MonkeyPatch) -> None:
    def lenient(value: object, **_: Any) -> bytes:
        try:
            return jsonio.to_json(value, what="it", max_bytes=10**9)
        except InvalidValueError:
            return b"null"

    patch.setattr(task_store, "to_json", lenient)


@noticed_by("a_failure_keeps_its_code_text_and_data")
def drops_the_errors_data(patch: pytest.MonkeyPatch) -> None:
    fail: Any = transitions.fail

    def dropping(old: Any, now: Any, failure: Failure, **options: Any) -> Any:
        return fail(old, now, replace(failure, data=Raw(b"null")), **options)

    patch.setattr(transitions, "fail", dropping)


@noticed_by("an_outcome_stays_readable_after_the_end")
def forgets_the_outcome_at_the_deadline(patch: pytest.MonkeyPatch) -> None:
    end: Any = transitions.end
    patch.setattr(transitions, "end", lambda old, *a, **k: replace(end(old, *a, **k), ttl=old.ttl))


# --- questions -----------------------------------------------------------------------------------


@noticed_by("a_question_waits_for_its_answer_and_the_first_one_wins")
def forgets_who_answered(patch: pytest.MonkeyPatch) -> None:
    answer: Any = inputs.answer
    patch.setattr(inputs, "answer", lambda *a, by, **k: answer(*a, by=None, **k))


@noticed_by("answers_to_some_questions_leave_the_others_outstanding")
def closes_all_questions_with_one(patch: pytest.MonkeyPatch) -> None:
    answer: Any = inputs.answer

    def closing(old: Any, *args: Any, **options: Any) -> Any:
        new = answer(old, *args, **options)
        done = {"questions": (), "status": status.TaskStatus.WORKING}
        return new if new is old else replace(new, **done)

    patch.setattr(inputs, "answer", closing)


@noticed_by("a_bad_answer_is_refused_and_takes_none_of_the_others")
def takes_any_answer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(task_store, "_check_answer", lambda *_: b"{}")


@noticed_by("a_question_keeps_its_key_for_ever")
def asks_again_in_silence(patch: pytest.MonkeyPatch) -> None:
    ask: Any = inputs.ask

    def silent(old: Any, *args: Any, **options: Any) -> Any:
        try:
            return ask(old, *args, **options)
        except QuestionKeyError:
            return old

    patch.setattr(inputs, "ask", silent)


@noticed_by("a_question_gives_a_person_the_longest_time_there_is")
def gives_strangers_as_much_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(task_store, "ANONYMOUS", "nobody")


@noticed_by("there_are_only_so_many_questions")
def asks_without_end(patch: pytest.MonkeyPatch) -> None:
    ask: Any = inputs.ask
    many = {"max_open": 10**6, "max_ever": 10**6}
    patch.setattr(inputs, "ask", lambda *args, **options: ask(*args, **many))


# --- cancelling, progress, time ------------------------------------------------------------------


@noticed_by("a_task_that_nobody_runs_is_cancelled_at_once")
def waits_for_a_worker_to_cancel(patch: pytest.MonkeyPatch) -> None:
    cancel: Any = transitions.cancel

    def waiting(old: Any, *args: Any, **options: Any) -> Any:
        new = cancel(replace(old, worker=old.worker or "w0"), *args, **options)
        return replace(new, worker=old.worker)

    patch.setattr(transitions, "cancel", waiting)


@noticed_by("a_task_that_a_worker_runs_gets_a_flag_and_may_still_finish")
def cancels_under_the_workers_feet(patch: pytest.MonkeyPatch) -> None:
    cancel: Any = transitions.cancel
    patch.setattr(
        transitions, "cancel", lambda old, *a, **k: cancel(replace(old, worker=None), *a, **k)
    )


@noticed_by("progress_shows_and_a_repetition_writes_nothing")
def writes_progress_again(patch: pytest.MonkeyPatch) -> None:
    report: Any = transitions.report
    patch.setattr(transitions, "report", lambda *args: replace(report(*args)))


@noticed_by("a_time_to_live_out_of_range_is_refused_not_clamped")
def takes_any_ttl(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(creation.Creation, "check_ttl", lambda self, ttl: None)


@noticed_by("a_time_to_live_at_the_edge_is_taken")
def refuses_the_edge(patch: pytest.MonkeyPatch) -> None:
    def strict(self: Any, ttl: Any) -> None:
        if not creation._MILLISECOND < ttl < self.config.max_ttl:
            raise InvalidTtlError(0, 0)

    patch.setattr(creation.Creation, "check_ttl", strict)


@noticed_by("extending_counts_from_now_and_never_shortens")
def extends_from_the_creation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transitions, "extend", lambda old, now, ttl, max_ttl: replace(old, ttl=ttl))


@noticed_by(
    "a_task_past_its_time_reads_as_failed_and_only_so",
    "no_write_but_the_expiry_touches_a_task_past_its_time",
)
def leaves_expiry_to_the_database(patch: pytest.MonkeyPatch) -> None:
    async def as_it_is(self: Any, found: Any) -> Any:
        return found

    patch.setattr(records.Records, "_expire", as_it_is)


@noticed_by("values_of_the_largest_size_come_back_whole")
def reads_the_first_piece(patch: pytest.MonkeyPatch) -> None:
    chunks: Any = payloads.Payloads.chunks

    async def first(self: Any, *args: Any) -> list[bytes]:
        return [(await chunks(self, *args))[0]]

    patch.setattr(payloads.Payloads, "chunks", first)


# --- limits --------------------------------------------------------------------------------------


@noticed_by(
    "of_many_creates_at_once_exactly_as_many_as_allowed_succeed",
    "a_limit_over_a_block_is_exact_too",
)
def lets_one_more_in(patch: pytest.MonkeyPatch) -> None:
    limit: Any = StoreConfig.max_active_of
    patch.setattr(StoreConfig, "max_active_of", lambda self, owner: limit(self, owner) + 1)


@noticed_by("a_task_that_ended_frees_its_place_at_once")
def counts_what_has_ended(patch: pytest.MonkeyPatch) -> None:
    async def all_of_them(self: Any, owner: str, task_ids: Any) -> list[str]:
        return list(task_ids)

    patch.setattr(quota.Quota, "_without_ended", all_of_them)
    patch.setattr(quota.Quota, "leave", lambda self, owner, task_id: None)


@noticed_by("owners_and_namespaces_do_not_share_a_limit")
def has_one_roster(patch: pytest.MonkeyPatch) -> None:
    counts_what_has_ended(patch)  # whose tasks they are is not looked at either
    patch.setattr(keys.Keys, "roster", lambda self, owner, block: f"@rosters:all~{block:03d}")


@noticed_by("a_refused_create_leaves_nothing_behind")
def leaves_a_refused_task(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Any, record: Any) -> None: ...

    patch.setattr(creation.Creation, "_withdraw", nothing)


# --- pages ---------------------------------------------------------------------------------------


@noticed_by(
    "pages_show_each_task_once_newest_first",
    "tasks_of_one_millisecond_are_not_lost_between_pages",
)
def lists_the_oldest_first(patch: pytest.MonkeyPatch) -> None:
    listed: Any = memory.MemoryBackend.list_by_prefix

    async def forwards(self: Any, prefix: str, **options: Any) -> Any:
        return await listed(self, prefix, **{**options, "reverse": False})

    patch.setattr(memory.MemoryBackend, "list_by_prefix", forwards)


@noticed_by("any_server_reads_a_cursor_that_another_made")
def seals_for_itself(patch: pytest.MonkeyPatch) -> None:
    async def own(self: Any) -> bytes:
        return str(id(self)).encode()

    patch.setattr(listing.Seal, "_load", own)


@noticed_by(
    "a_cursor_that_nobody_made_is_refused",
    "a_cursor_is_of_use_to_its_owner_alone_and_as_a_whole",
)
def starts_again_in_silence(patch: pytest.MonkeyPatch) -> None:
    opened: Any = listing.Seal.open

    async def lenient(self: Any, owner: str, cursor: str) -> str:
        try:
            return await opened(self, owner, cursor)
        except InvalidCursorError:
            return "7" * 36

    patch.setattr(listing.Seal, "open", lenient)


@noticed_by("a_page_has_a_size_that_the_caller_may_choose_up_to_a_limit")
def lists_as_much_as_asked(patch: pytest.MonkeyPatch) -> None:
    listed: Any = task_store.TaskStore.list

    async def generous(self: Any, owner: str, **options: Any) -> Any:
        patch.setattr(self, "config", replace_config(self.config))
        return await listed(self, owner, **options)

    patch.setattr(task_store.TaskStore, "list", generous)


def replace_config(config: Any) -> Any:
    """Return a configuration that allows pages of any size."""
    from dataclasses import replace as changed  # noqa: PLC0415 - not that of the records

    return changed(config, max_page_size=10_000)


@noticed_by("a_damaged_record_is_counted_and_hurts_only_itself")
def hides_what_is_damaged(patch: pytest.MonkeyPatch) -> None:
    decode: Any = task_store.decode_record

    def hiding(data: bytes) -> Any:
        try:
            return decode(data)
        except RecordFormatError:
            return None

    patch.setattr(task_store, "decode_record", hiding)


@noticed_by("nothing_but_tasks_is_listed")
def keeps_values_among_the_tasks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        keys.Keys,
        "blob",
        lambda self, owner, task_id, name, chunk: f"{self.task(owner, task_id)}.{name}.{chunk}",
    )
