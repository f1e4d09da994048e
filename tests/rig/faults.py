"""Faults to plant on purpose, each with the test that must catch it. Plain data.

A fault is a change of text, made in a copy of the package. The text that is right is looked for in the whole package
and must be there just once: a fault that no longer fits is planted anew.
"""

from typing import NamedTuple


class Fault(NamedTuple):
    """A fault and what must catch it.

    Attributes:
        name: what the faulty program does.
        old: the text that is right, found in the package once.
        new: the text that is wrong.
        caught_by: the test, as pytest names it.
    """

    name: str
    old: str
    new: str
    caught_by: str


PART = "unit/test_part.py::"
WEB_PAGES = "integration/test_web_pages.py::"
WEB_FILES = "integration/test_web_files.py::"
WEB_LIVE = "integration/test_web_live.py::"
DOWNLOAD = "integration/test_download.py::"
VOICE = "integration/test_voices.py::"
CLAIM = "integration/test_store_claim.py::"
CRASH = "integration/test_store_crash.py::"
TRACE = "integration/test_store_trace.py::"
POISON = "integration/test_store_poison.py::"
VERBS = "integration/test_store_verbs.py::"
ENGINE = "integration/test_engine.py::"
INTAKE = "integration/test_intake.py::"
WATCHER = "integration/test_watcher.py::"
GATE = "integration/test_gate.py::"
SICK = "integration/test_sick_disks.py::"
FSCK = "integration/test_fsck.py::"
BACKUP = "integration/test_backup.py::"
POWER = "integration/test_power_loss.py::"
OUTAGE = "integration/test_engine_outage.py::"
CLIENT = "integration/test_client_limits.py::"
GROUP = "integration/test_group_commit.py::"
CIRCUIT = "unit/test_circuit.py::"
LIMITS = "unit/test_limits.py::"
POOL = "unit/test_pool.py::"
GPU = "unit/test_gpu.py::"
BACKLOG = "unit/test_backlog.py::"
DURABLE = "unit/test_durable.py::"
WORKSPACE = "unit/test_workspace.py::"
JOB = "unit/test_job.py::"
STAGES = "integration/test_stages.py::"
REMADE = f"{STAGES}test_what_is_made_from_a_text_that_changed_is_made_again_and_nothing_else"
DEATHS = f"{CRASH}test_a_death_anywhere_costs_at_most_the_unit_in_hand"
CUT = f"{POWER}test_a_power_cut_takes_back_nothing_that_was_acknowledged"
WANDER = f"{POWER}test_whatever_engine_and_people_do_no_power_cut_loses_it[together]"
AWAY = f"{ENGINE}test_a_backend_that_is_away_costs_no_attempt_and_is_asked_less_and_less_often[error0]"
LATER = f"{ENGINE}test_retry_later_is_tried_again_later_each_time_then_fails"
ALONE = f"{ENGINE}test_those_that_were_in_work_at_a_death_are_run_alone"
BAD_FSYNC = f"{TRACE}test_a_failed_fsync_is_not_tried_again_on_the_same_file[straight]"
ANY_INSTANT = f"{BACKUP}test_whatever_moves_at_any_instant_each_job_is_in_it_once"

CLAIMS = (
    Fault(
        "claim by copy and unlink",
        "            self._durable.rename_only(source, target)\n        except OSError as error:",
        "            self._durable.copy_file(source, target)\n            self._durable.unlink(source)\n"
        "        except OSError as error:",
        f"{DEATHS}[straight]",
    ),
    Fault(
        "a new job's own directory entry not synced",
        "                self._durable.fill(marked)\n            yield (path.parent,)\n",
        "                self._durable.fill(marked)\n",
        f"{CUT}[together-straight]",
    ),
    Fault(
        "the job's directory not synced after the claim",
        "            yield (target, path)\n        except PermissionError",
        "            yield (target,)\n        except PermissionError",
        f"{CUT}[together-straight]",
    ),
    Fault(
        "the topic's bytes not synced",
        "            yield (target, path)\n        except PermissionError",
        "            yield (path,)\n        except PermissionError",
        f"{POWER}test_a_topic_that_its_author_did_not_sync_is_whole_once_it_is_a_job[together]",
    ),
    Fault(
        "a claim's source removed before its copy's entry is on the disk",
        "            self._durable.copy_file(source, topic)\n            yield (path,)\n",
        "            self._durable.copy_file(source, topic)\n",
        f"{CUT}[apart-straight]",
    ),
    Fault(
        "the word that a source is left not on the disk before the copy",
        "        yield from self._durable.writing(path, "
        "{files.JOB: files.encode(replace(job, source_left=_identity(stat)))})\n",
        "        self._durable.fill(path / '.job', files.encode(replace(job, source_left=_identity(stat))))\n"
        "        yield (path / '.job',)\n"
        "        self._durable.rename_only(path / '.job', path / files.JOB)\n",
        f"{CUT}[apart-straight]",
    ),
    Fault(
        "the source of a copied claim left to be claimed again",
        "filter(self._finish, newest)]",
        "filter(None, ())]",
        f"{CRASH}test_a_death_anywhere_between_two_file_systems",
    ),
    Fault(
        "another file in the place of a source that was copied removed at the start",
        "if job.source_left is None or _identity(source.lstat()) != tuple(job.source_left):",
        "if job.source_left is None:",
        f"{CLAIM}test_a_file_in_the_place_of_one_that_was_copied_is_another_topic[after a death]",
    ),
    Fault(
        "another file in the place of a source that was copied removed at once",
        "            _check_same(source, stat)\n            self._durable.unlink(source)\n",
        "            self._durable.unlink(source)\n",
        f"{CLAIM}test_a_file_in_the_place_of_one_that_was_copied_is_another_topic[at once]",
    ),
    Fault(
        "a claim undone though its topic is in it",
        "                if not self._spool.is_claimed(path):\n                    self._durable.remove_tree(path)\n",
        "                self._durable.remove_tree(path)\n",
        BAD_FSYNC,
    ),
    Fault(
        "a claim that failed leaves its directory",
        "                if not self._spool.is_claimed(path):\n                    self._durable.remove_tree(path)\n",
        "                pass\n",
        f"{CLAIM}test_a_claim_of_what_is_gone_leaves_nothing",
    ),
    Fault(
        "somebody's directory taken for a claim that did not happen",
        "                return False\n            self._durable.remove_tree(path)\n",
        "                pass\n            self._durable.remove_tree(path)\n",
        f"{VERBS}test_recovery_keeps_what_it_does_not_know",
    ),
    Fault(
        "ids as the clock has it",
        "self._last_id_us = max(int(now * 1_000_000), self._last_id_us + 1)",
        "self._last_id_us = int(now * 1_000_000)",
        f"{CLAIM}test_ids_sort_by_acceptance_whatever_the_clock_does[one name-goes back]",
    ),
    Fault(
        "an id given that a finished job has",
        '            if not any(os.path.lexists(f"{self._spool.place(place)}/{name}") for place in ELSEWHERE):\n',
        "            if True:\n",
        f"{CLAIM}test_ids_do_not_collide_after_a_restart_on_a_clock_that_stands_still[output]",
    ),
    Fault(
        "the digest of what was read kept for another file",
        "        if inode not in {None, found.st_ino}:\n",
        "        if False:\n",
        f"{INTAKE}test_a_file_replaced_at_the_last_moment_is_one_job_of_what_is_there",
    ),
)

MOVES = (
    Fault(
        "attempts not counted before the work",
        "        self._mark(stage, name)\n        yield (path.parent,)\n",
        "        yield (path.parent,)\n",
        f"{VERBS}test_begin_counts_before_the_work",
    ),
    Fault(
        "the sign of an attempt not synced",
        "        self._mark(stage, name)\n        yield (path.parent,)\n",
        "        self._mark(stage, name)\n        yield ()\n",
        f"{CUT}[together-straight]",
    ),
    Fault(
        "deaths not counted",
        "            job = job.crash(stage)\n",
        "            pass\n",
        f"{POISON}test_each_death_in_the_work_is_counted_and_costs_no_attempt",
    ),
    Fault(
        "a death counted twice",
        "            job = job.crash(stage)\n",
        "            job = job.crash(stage).crash(stage)\n",
        f"{POISON}test_each_death_in_the_work_is_counted_and_costs_no_attempt",
    ),
    Fault(
        "a death counted again at the next start",
        "        for marker in left:\n            self._drop(marker.path)\n        self.died",
        "        self.died",
        f"{VERBS}test_a_death_is_counted_once[after a restart]",
    ),
    Fault(
        "a death counted again at the next attempt",
        "        self.died.pop((stage, name), None)\n",
        "",
        f"{VERBS}test_a_death_is_counted_once[in the same run]",
    ),
    Fault(
        "a death counted after the sign of it is gone",
        "            yield from self._save(path, job)\n            self._forget_death(stage, name, left)\n",
        "            self._forget_death(stage, name, left)\n            yield (path.parent,)\n"
        "            yield from self._save(path, job)\n",
        WANDER,
    ),
    Fault(
        "the sign of an attempt kept when the job moves on",
        "                return target\n        self._unmark_moved(stage, job.id)\n",
        "                return target\n",
        f"{DEATHS}[straight]",
    ),
    Fault(
        "the sign of an attempt kept when it is given back",
        "        self._unmark(stage, job.id)\n        yield (path.parent,)\n        path.lstat()\n",
        "        yield (path.parent,)\n        path.lstat()\n",
        f"{VERBS}test_give_back_uncounts",
    ),
    Fault(
        "a job that was moved away given back in silence",
        "        yield (path.parent,)\n        path.lstat()\n",
        "        yield (path.parent,)\n",
        f"{VERBS}test_a_job_that_was_moved_away_is_no_fault[give_back]",
    ),
    Fault(
        "the sign of an attempt kept when the job is deferred",
        "        self._unmark(stage, job.id)\n        yield (path.parent,)\n\n    def finish",
        "        yield (path.parent,)\n\n    def finish",
        f"{VERBS}test_defer_keeps_the_count_the_time_and_the_error",
    ),
    Fault(
        "an attempt that went wrong not counted",
        "replace(job, not_before_s=not_before_s, last_error=trouble)",
        "replace(job.give_back(stage), not_before_s=not_before_s, last_error=trouble)",
        f"{VERBS}test_defer_keeps_the_count_the_time_and_the_error",
    ),
    Fault(
        "a stage's directory not synced after a move",
        "            yield (target.parent,)\n            if begin:\n",
        "            yield ()\n            if begin:\n",
        f"{CUT}[together-straight]",
    ),
    Fault(
        "the sign of an attempt left behind by a job that walks on",
        "            if begin:\n                self._pass_marker(job.id, stage, after)\n",
        "",
        f"{POWER}test_jobs_that_share_their_fsyncs_lose_nothing_either[together]",
    ),
    Fault(
        "a failure's directory not synced",
        "        yield (target.parent,)\n        self._unmark_moved(stage, name)\n",
        "        yield ()\n        self._unmark_moved(stage, name)\n",
        f"{CUT}[together-detour]",
    ),
    Fault(
        "a failed job without its reason",
        "        told = {files.REASON: files.encode(trouble), files.JOB:",
        "        told = {files.JOB:",
        f"{VERBS}test_fail_says_why_in_reason_json",
    ),
    Fault(
        "the reason of an earlier failure published",
        "            self._durable.remove(path / files.REASON)\n",
        "            pass\n",
        f"{VERBS}test_a_job_that_went_well_in_the_end_carries_no_reason",
    ),
    Fault(
        "what is in the way in output/ taken for the job",
        "    if not os.path.lexists(target):\n        return False\n",
        "    return os.path.lexists(target)\n",
        f"{POISON}test_a_job_whose_next_place_is_taken_is_not_begun_again_at_once[output]",
    ),
    Fault(
        "job.json written in place, past the disk",
        "        yield from self._durable.writing(path, {files.JOB: files.encode(job)})\n",
        "        (path / files.JOB).write_bytes(files.encode(job))\n        yield (path / files.JOB, path)\n",
        f"{TRACE}test_job_json_is_replaced_and_never_written_in_place[defer]",
    ),
)

STORE = (
    Fault(
        "no recovery",
        "        newest = surveys[Stage.SCRIPTS].newest\n",
        "        return []\n        newest = surveys[Stage.SCRIPTS].newest\n",
        f"{DEATHS}[straight]",
    ),
    Fault(
        "recovery deletes jobs without job.json",
        "        done += [self._recover_incoming(path)",
        "        for path in map(spool.place(Stage.SCRIPTS).joinpath, spool.ids(Stage.SCRIPTS)):\n"
        "            if not (path / files.JOB).exists():\n"
        "                self.durable.remove_tree(path)\n"
        "        done += [self._recover_incoming(path)",
        f"{VERBS}test_a_job_without_job_json_is_no_rubbish",
    ),
    Fault(
        "what was in hand at a death not looked for",
        "        if marker.run == self.run:\n            return\n",
        "        return\n",
        f"{POISON}test_each_death_in_the_work_is_counted_and_costs_no_attempt",
    ),
    Fault(
        "the sign of an attempt kept for ever when its job is elsewhere",
        "        else:\n            self.durable.unlink(marker.path)\n",
        "",
        f"{DEATHS}[straight]",
    ),
    Fault(
        "a publish that was cut short left in output/",
        '        self.durable.remove_tree(path)\n        return f"{path.name}: a publish',
        '        return f"{path.name}: a publish',
        f"{VERBS}test_a_second_recovery_finds_nothing",
    ),
    Fault(
        "a retry that forgets nothing",
        "self.spool.read_job(found.path).afresh()",
        "self.spool.read_job(found.path)",
        f"{VERBS}test_retry_begins_at_zero_and_takes_the_reason_away",
    ),
    Fault(
        "a retry of what is in work",
        "if found.place != Aside.FAILED and self.in_work(found):",
        "if False:",
        f"{VERBS}test_retry_leaves_alone_what_is_in_work",
    ),
    Fault(
        "a damaged job.json thrown away",
        'self.durable.rename(path / files.JOB, path / f"{files.JOB}.damaged")',
        "self.durable.remove(path / files.JOB)",
        f"{VERBS}test_retry_of_a_damaged_job_lets_it_go_on_and_keeps_the_damaged_file[[]]",
    ),
    Fault(
        "a job.json that a power cut left torn not rebuilt",
        "        if files.is_torn(data):\n            return self._rebuilt(path)\n",
        "        if not data:\n            return self._rebuilt(path)\n",
        f"{CUT}[together-straight]",
    ),
    Fault(
        "every damaged job.json taken for torn",
        '    if data.endswith(b"}\\n") and b"\\0" not in data:\n        return False\n',
        "    return True\n",
        f"{JOB}test_what_nobody_here_wrote_is_damaged_and_not_torn[[]]",
    ),
    Fault(
        "the job.json of another job taken for this one's",
        "        if job.id != path.name:\n",
        "        if False:\n",
        "unit/test_spool.py::test_the_job_json_of_another_job_is_damaged",
    ),
)

BACKLOGS = (
    Fault(
        "the newest first",
        "oldest=sorted(seen.oldest)[:oldest]",
        "oldest=sorted(seen.oldest, reverse=True)[:oldest]",
        f"{CLAIM}test_ready_gives_the_oldest_first_and_says_when_the_next_is_due",
    ),
    Fault(
        "a window of deferred jobs in the way of those behind it",
        "        while not (ids or self._is_whole or known == len(self._deferred)):",
        "        while False:",
        f"{BACKLOG}test_a_window_of_deferred_jobs_is_not_in_the_way_of_those_behind_it",
    ),
    Fault(
        "a window taken for the whole stage",
        "self._is_whole = len(self._window) < WINDOW_JOBS",
        "self._is_whole = True",
        f"{BACKLOG}test_more_jobs_than_a_window_holds_are_all_given_oldest_first",
    ),
    Fault(
        "a deferred job begun early",
        "        if now < job.not_before_s < now + NOT_BEFORE_MAX_S:",
        "        if False:",
        f"{VERBS}test_defer_keeps_the_count_the_time_and_the_error",
    ),
    Fault(
        "a deferred job never begun again",
        "        return due_s is not None and due_s <= self._clock()\n",
        "        return False\n",
        f"{BACKLOG}test_a_deferred_job_is_given_once_its_time_has_come",
    ),
    Fault(
        "a deferred job that a person mends waits on",
        "deferred.due_s > now and deferred == self._read_deferred(name, deferred.due_s)",
        "deferred.due_s > now",
        f"{BACKLOG}test_a_deferred_job_that_is_changed_is_looked_at_again",
    ),
    Fault(
        "a wait of years believed",
        "        if now < job.not_before_s < now + NOT_BEFORE_MAX_S:",
        "        if now < job.not_before_s:",
        f"{VERBS}test_a_wait_of_years_is_a_clock_that_was_wrong",
    ),
    Fault("suspects not told", "            suspects.add(name)\n", "            pass\n", ALONE),
    Fault(
        "a claim that has not happened begun",
        "        if not (self._spool.is_claimed(path) or name in self._published):\n",
        "        if False:\n",
        f"{CLAIM}test_a_claim_that_has_not_happened_is_no_job",
    ),
)

FILES = (
    Fault(
        "a file renamed before its bytes are synced",
        "                yield tuple(temporaries.values())\n"
        "                for name, temporary in temporaries.items():\n"
        "                    self._disk.rename(temporary, folder / name)\n",
        "                for name, temporary in temporaries.items():\n"
        "                    self._disk.rename(temporary, folder / name)\n"
        "                yield tuple(folder / name for name in files)\n",
        f"{CUT}[together-straight]",
    ),
    Fault(
        "a file's bytes never synced",
        "                yield tuple(temporaries.values())\n",
        "",
        f"{CUT}[together-straight]",
    ),
    Fault(
        "a file's directory not synced",
        "                raise\n        yield (folder,)\n",
        "                raise\n        yield ()\n",
        f"{CUT}[together-straight]",
    ),
    Fault(
        "every file written in place",
        "                    self.fill(temporaries[name], data)\n",
        "                    (folder / name).unlink(missing_ok=True)\n"
        "                    self.fill(folder / name, data)\n                    self.fill(temporaries[name], data)\n",
        f"{DEATHS}[straight]",
    ),
    Fault(
        "a failed fsync tried again",
        "                try:\n                    self._disk.fsync(fd)\n                finally:\n",
        "                try:\n                    try:\n                        self._disk.fsync(fd)\n"
        "                    except OSError:\n                        self._disk.fsync(fd)\n                finally:\n",
        BAD_FSYNC,
    ),
    Fault(
        "a short write taken for a whole one",
        "        while rest:\n            rest = rest[self._disk.write(fd, rest) :]\n",
        "        self._disk.write(fd, rest)\n",
        f"{DURABLE}test_short_writes_are_gone_on_with",
    ),
    Fault(
        "a temporary file left by a write that failed",
        "                for temporary in temporaries.values():\n                    self._discard(temporary)\n"
        "                raise\n",
        "                raise\n",
        f"{DURABLE}test_a_write_that_fails_leaves_the_old_file_and_no_other[28-disk_full-rename]",
    ),
    Fault(
        "what another process wrote not synced",
        "            self.sync(temporary)\n",
        "            pass\n",
        f"{CUT}[together-straight]",
    ),
    Fault(
        "a full disk no trouble of the disk",
        '    errno.ENOSPC: ("disk_full", "free some space"),\n',
        "",
        f"{DURABLE}test_a_write_that_fails_leaves_the_old_file_and_no_other[28-disk_full-create]",
    ),
    Fault(
        "a publish on one file system not synced",
        "        else:\n            yield (target.parent,)\n            return\n",
        "        else:\n            return\n",
        f"{CUT}[together-straight]",
    ),
    Fault(
        "a source removed before its copy is on the disk",
        "            self._disk.rename(incoming, target)\n        yield (target.parent,)\n        with",
        "            self._disk.rename(incoming, target)\n        with",
        f"{CUT}[apart-straight]",
    ),
    Fault(
        "a copy whose directory is not synced",
        "                    self._copy(Path(entry), target / entry.name)\n        self.sync(target)\n",
        "                    self._copy(Path(entry), target / entry.name)\n",
        f"{CUT}[apart-straight]",
    ),
    Fault(
        "a copy whose bytes are not synced",
        "                    self._write_all(fd, block)\n            self._disk.fsync(fd)\n",
        "                    self._write_all(fd, block)\n",
        f"{CUT}[apart-straight]",
    ),
    Fault(
        "a link followed where a directory is removed",
        "        if path.is_symlink():\n            self.remove(path)\n",
        "",
        f"{VERBS}test_recovery_does_not_follow_a_link_in_output",
    ),
    Fault(
        "a link followed where a directory is copied",
        "                elif entry.is_file(follow_symlinks=False):\n",
        "                elif entry.is_file():\n",
        f"{DURABLE}test_publish_to_another_file_system_leaves_links_and_pipes_out",
    ),
    Fault(
        "work cut off from who waits for it",
        "        raise no_threads() from error\n    return await uncut(future)\n",
        "        raise no_threads() from error\n    return await future\n",
        f"{DURABLE}test_cancelling_waits_for_the_end_of_the_work[1]",
    ),
)

GROUPS = (
    Fault(
        "a group acknowledged before its fsyncs",
        "list(dict.fromkeys(path for piece in pieces for path in piece.wanted))",
        "list[Path]()",
        f"{GROUP}test_nobody_goes_on_before_the_fsyncs_that_were_asked_for",
    ),
    Fault(
        "a failed fsync told to one of two who asked for that path",
        "(failed[path] for path in piece.wanted if path in failed)",
        "(failed.pop(path) for path in piece.wanted if path in failed)",
        f"{GROUP}test_a_failed_fsync_is_told_to_all_who_asked_for_it_and_to_nobody_else",
    ),
    Fault(
        "a failed fsync told to its neighbours",
        "next((failed[path] for path in piece.wanted if path in failed), None)",
        "next(iter(failed.values()))",
        f"{GROUP}test_a_failed_fsync_is_told_to_all_who_asked_for_it_and_to_nobody_else",
    ),
    Fault(
        "a failed fsync not told to the work itself",
        "next(self.steps) if error is None else self.steps.throw(error)",
        "next(self.steps)",
        f"{GROUP}test_a_failed_fsync_is_told_to_all_who_asked_for_it_and_to_nobody_else",
    ),
    Fault(
        "only so many paths synced as there are threads",
        "paths[number::FSYNCS_MAX]",
        "paths[number : number + 1]",
        f"{GROUP}test_nobody_goes_on_before_the_fsyncs_that_were_asked_for",
    ),
    Fault(
        "a path synced for each who asks",
        "list(dict.fromkeys(path for piece in pieces for path in piece.wanted))",
        "[path for piece in pieces for path in piece.wanted]",
        f"{GROUP}test_what_comes_together_shares_its_fsyncs",
    ),
    Fault(
        "work cut off from a caller that is cancelled",
        "            task.uncancel()\n            task.cancel()\n            return future.result()\n",
        "            raise\n",
        f"{ENGINE}test_being_stopped_in_the_middle_of_a_begin_gives_it_back",
    ),
    Fault(
        "the cancellation of a caller forgotten",
        "            task.uncancel()\n            task.cancel()\n            return future.result()\n",
        "            return future.result()\n",
        f"{GROUP}test_a_cancelled_caller_gets_the_result_and_then_its_cancellation",
    ),
    Fault(
        "no round after the first has ended",
        "self._is_working = bool(pieces)",
        "self._is_working = True",
        f"{GROUP}test_work_that_comes_later_is_done_too",
    ),
)

LANES = (
    Fault(
        "a job begun a second time though its work has not noticed that it was away",
        "        if job.id in self._in_hand:  #",
        "        if False:  #",
        f"{ENGINE}test_a_job_that_is_back_before_its_work_noticed_that_it_was_away_is_in_hand_once",
    ),
    Fault(
        "a job handed over although older ones wait",
        "if not (self._is_open and self._engine.quarantine.is_quiet",
        "if not (self._engine.quarantine.is_quiet",
        f"{ENGINE}test_a_place_is_kept_only_where_a_job_would_be_begun_at_once[waiting]",
    ),
    Fault(
        "a job handed over beside a suspect",
        "if not (self._is_open and self._engine.quarantine.is_quiet and",
        "if not (self._is_open and",
        f"{ENGINE}test_a_place_is_kept_only_where_a_job_would_be_begun_at_once[suspect]",
    ),
    Fault(
        "a job handed over to a stage whose backend is away",
        "        if self.trouble or len(self._in_hand) + self._reserved >= self._limit:\n",
        "        if len(self._in_hand) + self._reserved >= self._limit:\n",
        f"{ENGINE}test_a_place_is_kept_only_where_a_job_would_be_begun_at_once[away]",
    ),
    Fault(
        "a job handed over beyond the limit",
        "        if self.trouble or len(self._in_hand) + self._reserved >= self._limit:\n",
        "        if self.trouble:\n",
        f"{ENGINE}test_a_place_is_kept_only_where_a_job_would_be_begun_at_once[full]",
    ),
    Fault(
        "a job that is on its way begun twice",
        "            if self._is_on_its_way(name) or ",
        "            if ",
        f"{ENGINE}test_a_job_that_is_seen_on_its_way_is_begun_once",
    ),
    Fault(
        "a job handed over while stopping begun all the same",
        "        if self._is_stopping:\n            await self._attempts.give_back(job)\n            return\n",
        "        if self._is_stopping:\n            return\n",
        f"{ENGINE}test_a_job_that_is_handed_over_to_a_lane_that_stops_is_given_back",
    ),
    Fault(
        "a job handed over and not begun not given back at the stop",
        "        for job in self._handed_over.values():\n            await self._attempts.give_back(job)\n",
        "",
        f"{ENGINE}test_a_job_that_is_handed_over_as_its_lane_stops_is_given_back",
    ),
    Fault(
        "a suspect not run alone",
        "async with self._engine.quarantine.turn(suspect=suspect):",
        "async with self._engine.quarantine.turn(suspect=False):",
        ALONE,
    ),
    Fault(
        "a job that a person moved away worked on",
        "                self._in_hand[name].cancel()\n",
        "                pass\n",
        f"{ENGINE}test_a_job_that_a_person_moves_away_in_mid_work_is_let_go",
    ),
    Fault(
        "a backend that was away asked with all jobs at once",
        "slots = (1 if self.trouble else self._limit) -",
        "slots = self._limit -",
        f"{ENGINE}test_a_backend_that_was_away_is_asked_with_one_job_then_all_go",
    ),
    Fault(
        "a hint in mid look forgotten",
        "        self._is_open = ready.is_all and not self._is_hinted and not self._is_stopping\n",
        "        self._is_hinted = False\n        self._is_open = ready.is_all and not self._is_stopping\n",
        f"{ENGINE}test_a_hint_in_mid_look_is_not_lost",
    ),
)

ATTEMPTS = (
    Fault(
        "an attempt not given back when the daemon stops",
        "            await self.give_back(job)\n            raise\n",
        "            raise\n",
        f"{ENGINE}test_being_stopped_gives_the_attempt_back",
    ),
    Fault(
        "a backend that is away costs an attempt",
        "        else:\n            await self._commit(self._moves.give_back(self.stage, job))\n",
        "        else:\n            await self._commit(\n"
        "                self._moves.defer(self.stage, job, Trouble.of(error, stage=self.stage, at=0.0), 0.0)\n"
        "            )\n",
        AWAY,
    ),
    Fault(
        "a full disk fails a job",
        "            case OSError() if is_storage_trouble(error):\n",
        "            case OSError() if False:\n",
        f"{ENGINE}test_a_disk_that_is_full_under_a_stage_is_a_pause[full]",
    ),
    Fault(
        "trouble of the disk fails a job",
        "            case StorageTrouble():\n                self._gate.tell(error)\n",
        "            case StorageTrouble():\n                await self._fail(job, error)\n                return\n",
        f"{ENGINE}test_storage_trouble_pauses_everything_and_goes_on_by_itself",
    ),
    Fault(
        "one death more than allowed",
        "        if crashes >= self._policy.crashes_max:",
        "        if crashes > self._policy.crashes_max:",
        f"{ENGINE}test_a_job_that_took_the_daemon_down_too_often_is_not_begun_again",
    ),
    Fault(
        "one attempt more than allowed",
        "        if attempts >= self._policy.attempts_max:",
        "        if attempts > self._policy.attempts_max:",
        LATER,
    ),
    Fault(
        "a wait that does not grow",
        "self.retry_first_s * 2.0 ** min(attempts - 1, 30)",
        "self.retry_first_s * 1.0 ** min(attempts - 1, 30)",
        f"{ENGINE}test_waits_double_are_spread_and_have_a_bound[3-None-120-132]",
    ),
    Fault(
        "the wait that a server asks for ignored",
        "asked_s or 0.0)",
        "0.0)",
        f"{ENGINE}test_a_server_that_asks_for_more_time_gets_it",
    ),
    Fault(
        "a backend that is away asked as often as before",
        "        self._wait_s = min(self._wait_s * 2, self._policy.down_max_s)\n",
        "",
        AWAY,
    ),
    Fault(
        "each job that finds the backend away counted a look",
        "        if self.wait_s > 0:\n            return\n",
        "",
        f"{ENGINE}test_jobs_that_find_it_away_together_count_as_one_look",
    ),
    Fault(
        "a damaged job begun again and again",
        "            await self._commit(self._moves.fail_damaged(self.stage, name, trouble))\n"
        "            return None\n",
        "            return None\n",
        f"{ENGINE}test_a_damaged_job_is_put_aside_with_the_damaged_file_kept[list]",
    ),
)

GATES = (
    Fault(
        "a gate that never opens again",
        "                self._open()\n        return self._is_open\n",
        "                pass\n        return self._is_open\n",
        f"{GATE}test_a_disk_that_is_well_is_proved_once",
    ),
    Fault(
        "a gate that opens unproved",
        "prove=not self._is_open",
        "prove=False",
        f"{GATE}test_what_blames_the_disk_is_a_pause[28]",
    ),
    Fault(
        "too little space not noticed",
        "(free := found.f_bavail * found.f_frsize) < self._min_free_bytes",
        "(free := found.f_bavail * found.f_frsize) < 0",
        f"{GATE}test_too_little_space_is_told_once_and_opens_again",
    ),
    Fault(
        "another spool in the place of this one written to",
        "        if self._identity not in {None, found}:\n",
        "        if False:\n",
        f"{SICK}test_another_directory_in_its_place_is_not_written_to",
    ),
    Fault(
        "trouble met during a look undone by it",
        "            if self.trouble is before:",
        "            if True:",
        f"{SICK}test_trouble_met_during_a_look_is_not_undone_by_it",
    ),
    Fault(
        "a proof that failed left behind",
        "                self._durable.remove(probe)  # it is in place",
        "                pass  # it is in place",
        f"{SICK}test_a_proof_that_fails_leaves_nothing[2]",
    ),
    Fault(
        "a disk that fails again and again tried as often as before",
        "min(self._wait_s * 2, LOOK_AGAIN_MAX_S) if self._is_relapse else LOOK_AGAIN_S",
        "LOOK_AGAIN_S",
        f"{SICK}test_a_disk_that_fails_again_and_again_is_told_twice_and_tried_ever_more_rarely",
    ),
)

INTAKES = (
    Fault(
        "a file taken that somebody writes to",
        "            if has_writer(fd):\n                return None\n",
        "",
        f"{INTAKE}test_what_another_process_has_open_for_writing_is_left[os.O_WRONLY]",
    ),
    Fault(
        "a file taken before it is quiet",
        "wait_s = 0.0 if name in moved_in else self._quiet.wait_s(name, found)",
        "wait_s = 0.0",
        f"{INTAKE}test_what_is_written_in_place_waits_until_it_is_quiet",
    ),
    Fault(
        "a link in input/ followed",
        "            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)\n"
        "        except PermissionError as error:\n",
        "            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)\n"
        "        except PermissionError as error:\n",
        f"{INTAKE}test_what_turns_into_no_file_after_the_look_is_left[to_link]",
    ),
    Fault(
        "a directory in input/ taken",
        "        if not stat.S_ISREG(found.st_mode):\n            os.close(fd)\n            return None",
        "        if stat.S_ISFIFO(found.st_mode):\n            os.close(fd)\n            return None",
        f"{INTAKE}test_what_turns_into_no_file_after_the_look_is_left[to_directory]",
    ),
    Fault(
        "a refused topic handed to the stage",
        "        if refused is None:\n",
        "        if True:\n",
        f"{INTAKE}test_a_refused_topic_is_put_aside_and_not_announced_to_the_stage",
    ),
    Fault(
        "the rest of a batch left in input/",
        "                haul.look_again_in(0.0)\n                haul.is_cut = True\n",
        "                haul.is_cut = True\n",
        f"{INTAKE}test_a_burst_is_taken_whole_and_each_file_once",
    ),
    Fault(
        "names that moved in forgotten when a batch is cut",
        "            self._moved_in = {**moved_in, **self._moved_in}\n            self._before = haul\n",
        "            self._before = haul\n",
        f"{INTAKE}test_a_batch_that_is_cut_keeps_the_names_that_moved_in",
    ),
    Fault(
        "topics taken while the disk is in trouble",
        "        if not await self._gate.storage_ready():\n            return TROUBLE_WAIT_S\n",
        "",
        f"{INTAKE}test_nothing_is_taken_while_the_disk_is_in_trouble_and_no_name_is_forgotten",
    ),
    Fault(
        "a place kept for a topic that was not taken never given up",
        "        elif begin:\n            self._first.unreserve()\n",
        "",
        f"{INTAKE}test_a_place_that_was_kept_is_given_up_when_nothing_comes[written to]",
    ),
    Fault(
        "a place kept for a topic that was refused never given up",
        "        finally:\n            if begun:\n                self._first.unreserve()\n",
        "        finally:\n            pass\n",
        f"{INTAKE}test_a_place_that_was_kept_is_given_up_when_nothing_comes[refused]",
    ),
)

WATCHERS = (
    Fault(
        "lost events not made good",
        "        self._soon(self._overflowed)\n        self._hear_all()\n",
        "        self._soon(self._overflowed)\n",
        f"{WATCHER}test_a_lost_event_queue_hints_every_kind",
    ),
    Fault(
        "a directory made anew not watched",
        "        if identities != self._identities:\n",
        "        if False:\n",
        f"{WATCHER}test_a_swap_above_the_directories_is_found_at_the_next_rescan",
    ),
    Fault(
        "no rescan",
        "{watched.kind for watched in self._watched if self._hint(watched.kind, None)}",
        "set()",
        f"{WATCHER}test_every_kind_is_hinted_at_every_rescan",
    ),
    Fault(
        "a dead reader's descriptors kept",
        "        self._outage = reason\n        self._close()\n",
        "        self._outage = reason\n",
        f"{WATCHER}test_a_dead_reader_is_replaced_at_once_and_leaves_no_descriptor",
    ),
    Fault(
        "a hint that raises ends the watch",
        "        except Exception as error:  # noqa: BLE001 - a bug of whoever is woken",
        "        except ZeroDivisionError as error:  # noqa: BLE001 - a bug of whoever is woken",
        f"{WATCHER}test_the_hints_of_one_kind_survive_a_consumer_that_raises",
    ),
    Fault(
        "a file known by a name that something else happened to",
        "            names.pop(name, None)\n"
        "            names[name if moved_in and len(names) < NAMES_MAX else None] = None\n",
        "            names[name if len(names) < NAMES_MAX else None] = None\n",
        f"{WATCHER}test_everything_else_is_hinted_without_a_name[written]",
    ),
)

UNITS = (
    Fault(
        "an entry in the manifest before its product",
        "        self._durable.write(self._target(path), data)\n",
        "        self._target(path)\n",
        f"{DEATHS}[straight]",
    ),
    Fault(
        "a unit kept though what it is made from has changed",
        "return entry is not None and entry.made_from == made_from and self._matches(entry)",
        "return entry is not None and self._matches(entry)",
        f"{WORKSPACE}test_what_is_made_from_something_else_does_not_count",
    ),
    Fault(
        "a product taken for whole by its size alone",
        "_hash(path) == (entry.sha256, entry.bytes)",
        "_hash(path)[1] == entry.bytes",
        f"{WORKSPACE}test_what_is_harmed_does_not_count[changed]",
    ),
    Fault(
        "a link to a product followed",
        '    """Open without following a link or waiting for a pipe: a person may have put anything there."""\n'
        "    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)\n",
        "    return os.open(path, flags | os.O_NONBLOCK)\n",
        f"{WORKSPACE}test_what_is_no_regular_file_is_damaged",
    ),
    Fault(
        "a product behind a linked folder taken for ours",
        "if path.parent.is_symlink() or path.lstat().st_size != entry.bytes:",
        "if path.lstat().st_size != entry.bytes:",
        f"{WORKSPACE}test_a_product_behind_a_linked_folder_does_not_count",
    ),
    Fault(
        "what a longer script left kept",
        '            if f"{folder}/{path.name}" not in wanted and not path.is_dir():\n',
        "            if False:\n",
        f"{WORKSPACE}test_what_a_longer_script_left_is_dropped",
    ),
    Fault(
        "a topic that was mended not told anew",
        "        if self._is_of_another_topic():\n            return Stage.SCRIPTS\n",
        "",
        f"{WORKSPACE}test_a_topic_that_was_mended_is_told_anew",
    ),
)

WORKS = (
    Fault(
        "a script kept though its topic has changed",
        "digest(request=asdict(request), voice=voice, by=by)",
        "digest(voice=voice, by=by)",
        REMADE,
    ),
    Fault(
        "a scene's audio kept though its text has changed",
        "digest(request=asdict(request), by=by)\n        if await offload(space.whole, wav_name",
        "digest(by=by)\n        if await offload(space.whole, wav_name",
        REMADE,
    ),
    Fault(
        "a scene's picture kept though its text has changed",
        "digest(request=asdict(request), by=by)\n        if await offload(space.whole, path",
        "digest(by=by)\n        if await offload(space.whole, path",
        REMADE,
    ),
    Fault(
        "joined audio kept though a scene's audio has changed",
        "            parts=[entry.sha256 for entry in entries if entry],\n",
        "            parts=[],\n",
        f"{STAGES}test_audio_that_another_voice_speaks_is_joined_anew",
    ),
    Fault(
        "a page kept though its parts have changed",
        "            parts=[(entry.path, entry.sha256) for entry in space.manifest.products "
        "if entry.path != files.PAGE],\n",
        "            parts=[],\n",
        REMADE,
    ),
    Fault(
        "a job published that was not read back",
        "        await offload(space.verify)\n",
        "",
        f"{STAGES}test_a_job_with_a_harmed_product_does_not_leave_the_last_stage",
    ),
    Fault(
        "pictures put to the audio of another script",
        "        await offload(_need_audio_of_this_script, space)\n",
        "",
        f"{STAGES}test_audio_of_another_script_is_refused",
    ),
    Fault(
        "a script unread taken for one",
        "_type_faults(script) or _faults(script)",
        "_type_faults(script)",
        f"{STAGES}test_a_script_with_a_models_thoughts_does_not_count",
    ),
    Fault(
        "silence taken for speech",
        "        await offload(check_speech, speech, text=request.text, unit=unit, bytes_max=SPEECH_BYTES_MAX)\n",
        "",
        f"{STAGES}test_silence_does_not_count",
    ),
)

FSCKS = (
    Fault(
        "a repair that removes the only copy of a job",
        "        if not any((self.spool.place(place) / name).is_dir() for place in (*SPOOL_PLACES, DONE)):\n",
        "        if False:\n",
        f"{FSCK}test_the_only_copy_of_a_job_is_left_and_bars_nothing",
    ),
    Fault(
        "a recovery beside a daemon",
        'contextlib.suppress(Taken), store.locked({"fsck": True})',
        "contextlib.nullcontext()",
        f"{FSCK}test_beside_a_daemon_only_finished_jobs_are_cleaned",
    ),
    Fault(
        "what moves reported after one look",
        "\nLOOKS: Final = 3\n",
        "\nLOOKS: Final = 1\n",
        f"{FSCK}test_a_claim_that_is_made_just_now_is_not_reported",
    ),
    Fault(
        "products never compared by their bytes",
        "            is_same = self._is_quick or ",
        "            is_same = True or ",
        f"{FSCK}test_a_planted_fault_is_found[product_flipped]",
    ),
    Fault(
        "a job in two places not seen",
        "        yield from self._twice(place, name)\n",
        "",
        f"{FSCK}test_a_planted_fault_is_found[job_in_two_stages]",
    ),
)

BACKUPS = (
    Fault(
        "a backup that meets no job on its way",
        "        found = set[str]()\n        for place in ORDER:\n",
        "        found = set[str]()\n        for place in reversed(ORDER) if not known else ():\n",
        f"{ANY_INSTANT}[moved_on]",
    ),
    Fault(
        "a backup that reads what there is only once",
        "ROSTER_LOOKS_MAX: Final = 12\n",
        "ROSTER_LOOKS_MAX: Final = 1\n",
        f"{ANY_INSTANT}[moved_back]",
    ),
    Fault(
        "a backup that believes the first reading that brings nothing",
        "            if quiet == ROSTER_QUIET_LOOKS:\n",
        "            if quiet == 1:\n",
        f"{BACKUP}test_a_job_that_is_moved_about_behind_the_readings_is_in_it",
    ),
    Fault(
        "a topic in a backup that was read while somebody wrote to it",
        "                return data, is_whole and not is_written\n",
        "                return data, True\n",
        f"{BACKUP}test_a_topic_that_is_written_over_meanwhile_is_read_again",
    ),
    Fault(
        "a topic that is claimed meanwhile in the backup twice",
        " and (source, sha256) not in self._taken_in_input:\n",
        ":\n",
        f"{ANY_INSTANT}[claimed]",
    ),
    Fault(
        "a topic that is claimed meanwhile not in the backup",
        "            self._late_job(name, topics)\n",
        "            pass\n",
        f"{ANY_INSTANT}[claimed]",
    ),
    Fault(
        "older backups removed for one that lacks something",
        "        if keep is not None and not summary.missing:\n",
        "        if keep is not None:\n",
        f"{BACKUP}test_a_topic_that_somebody_writes_to_is_missing_and_nothing_older_goes",
    ),
    Fault(
        "the newest backups rotated away",
        "    for name in own[:-keep]:\n",
        "    for name in own[keep:]:\n",
        f"{BACKUP}test_rotation_removes_only_what_is_a_backup",
    ),
    Fault(
        "a restore over what is there",
        '            if os.path.lexists(target):\n                raise Unusable("home_not_empty"',
        '            if False:\n                raise Unusable("home_not_empty"',
        f"{BACKUP}test_a_cache_that_has_a_file_already_is_not_overwritten",
    ),
    Fault(
        "a restore into a home that is not empty",
        "        _check_empty(spool, store.durable)\n",
        "",
        f"{BACKUP}test_a_home_that_is_not_empty_is_refused[output/x]",
    ),
    Fault(
        "an archive restored without its checksum",
        "    if wanted != [found.encode()]:\n",
        "    if False:\n",
        f"{BACKUP}test_an_archive_that_lacks_something_is_refused",
    ),
    Fault(
        "a member that leads out of its place unpacked",
        'len(parts) > PATH_PARTS_MAX or {"", ".", ".."} & {*parts}',
        "len(parts) > PATH_PARTS_MAX",
        f"{BACKUP}test_a_member_of_another_path_is_refused[output//topic.md]",
    ),
    Fault(
        "a link in an archive unpacked",
        "    if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE}:\n",
        "    if False:\n",
        f"{BACKUP}test_a_member_that_is_no_file_is_refused[2]",
    ),
)

VOICES = (
    Fault(
        "a wait for a voice that costs an attempt",
        "self._moves.defer(self.stage, job.give_back(self.stage), trouble, at)",
        "self._moves.defer(self.stage, job, trouble, at)",
        f"{ENGINE}test_what_is_on_its_way_is_waited_for_without_an_attempt_and_others_go_on",
    ),
    Fault(
        "a voice's path that leads out of its folder",
        'not all(_NAME.fullmatch(part) for part in path.split("/"))',
        "not path",
        f"{VOICE}test_an_entry_that_leads_elsewhere_is_left_out[../../x.onnx]",
    ),
    Fault(
        "a voice put in place unverified",
        'File(self.folder / file.name, urls, f"md5:{file.md5}", file.size_bytes)',
        "File(self.folder / file.name, urls, size=file.size_bytes)",
        f"{VOICE}test_a_voice_comes_whole_or_not_at_all",
    ),
    Fault(
        "a fetch that failed begun again at once",
        "        if fetch and time.monotonic() < fetch.again_at_s:\n",
        "        if fetch and time.monotonic() < 0:\n",
        f"{VOICE}test_without_any_server_the_job_waits_and_the_servers_are_left_alone",
    ),
)

DOWNLOADS = (
    Fault(
        "a part emptied before its record is",
        "        self._note(Record(url, validator, total, digest))\n        self._durable.cut(self._fd, 0)\n",
        "        self._durable.cut(self._fd, 0)\n"
        "        self._note(Record(url, validator, total, digest, self.record.synced))\n",
        f"{PART}test_whatever_a_power_cut_leaves_is_the_whole_file_or_a_part_that_can_be_gone_on_with",
    ),
    Fault(
        "an offset recorded before the bytes are on the disk",
        "        size = self.size\n        self._durable.sync(self.path)\n",
        "        size = self.size\n",
        f"{PART}test_whatever_a_power_cut_leaves_is_the_whole_file_or_a_part_that_can_be_gone_on_with",
    ),
    Fault(
        "a file in its place before its bytes are on the disk",
        "        self._durable.sync(self.path)\n        self._durable.rename(self.path, self.target)\n",
        "        self._durable.rename(self.path, self.target)\n",
        f"{PART}test_whatever_a_power_cut_leaves_is_the_whole_file_or_a_part_that_can_be_gone_on_with",
    ),
    Fault(
        "a part gone on with as far as it is long",
        "        self._durable.cut(self._fd, self.record.synced)\n        self.size = self.record.synced\n",
        "        self._durable.cut(self._fd, has)\n        self.size = has\n",
        f"{PART}test_the_record_keeps_up_with_the_checkpoints",
    ),
    Fault(
        "a part of a file appended at another place",
        "    if first != wanted.offset:\n",
        "    if first > wanted.offset:\n",
        f"{DOWNLOAD}test_a_part_that_does_not_fit_is_not_appended[earlier]",
    ),
    Fault(
        "a weak validator sent as if it were strong",
        'return etag if _STRONG_ETAG.fullmatch(etag) else ""',
        "return etag",
        f'{DOWNLOAD}test_without_a_strong_validator_it_begins_again[W/"weak"]',
    ),
    Fault(
        "an end without a length taken for success",
        "            if answer.is_framed:\n",
        "            if answer.is_framed or True:\n",
        f"{DOWNLOAD}test_a_body_without_length_and_digest_is_refused",
    ),
    Fault(
        "received bytes that keep a download going for ever",
        "        if have >= self._best + PROGRESS_BYTES_MIN:\n",
        "        if have > self._best:\n",
        f"{DOWNLOAD}test_a_trickle_is_not_waited_for_for_ever",
    ),
    Fault(
        "a token handed on to where a redirect leads",
        "own if _origin(at) == _origin(first) else {}",
        "own",
        f"{DOWNLOAD}test_redirects_are_followed_anew_and_credentials_stay_at_home",
    ),
    Fault(
        "a file in its place whatever its digest",
        '        if self._file.digest in ("", self._told.digest):\n',
        "        if True:\n",
        f"{DOWNLOAD}test_another_file_than_the_digest_says_is_never_put_in_place",
    ),
)

BACKENDS = (
    Fault(
        "a circuit that does not open",
        "                self._away(error, is_trial=is_trial)\n",
        "                pass\n",
        f"{CIRCUIT}test_each_row_of_the_table[closed-Unavailable]",
    ),
    Fault(
        "a circuit that lets everyone through while one tries",
        "        return max(left_s, TRYING_AFTER_S) if self._is_trying else left_s\n",
        "        return left_s\n",
        f"{CIRCUIT}test_each_row_of_the_table[half-open-another call]",
    ),
    Fault(
        "a rate not kept",
        "            await self._keep_rate()\n",
        "",
        f"{LIMITS}test_so_many_at_once_then_none_until_the_period_is_over",
    ),
    Fault(
        "a place not given back after an error",
        "        finally:\n            self._places.release()\n",
        "        except BaseException:\n            raise\n        else:\n            self._places.release()\n",
        f"{LIMITS}test_an_error_inside_gives_the_place_up",
    ),
    Fault(
        "a pool that keeps asking a member that is away",
        "                with member.circuit.call(member.server):\n"
        "                    return await call(member.backend)\n",
        "                return await call(member.backend)\n",
        f"{POOL}test_one_that_is_away_is_passed_over_until_its_time_is_up[Unavailable]",
    ),
    Fault(
        "a pool that is away as soon as one of its members is",
        "                errors.append(trouble if isinstance(trouble, Unusable) else error)\n",
        "                raise _worst([error]) from error\n",
        f"{POOL}test_another_one_does_the_call[Unavailable]",
    ),
    Fault(
        "a pool that gives all its calls to one member",
        "        return (self.circuit.wait_s > 0, self.circuit.trouble is None, self.load)\n",
        "        return (self.circuit.wait_s > 0, self.circuit.trouble is None, 0.0)\n",
        f"{POOL}test_two_calls_at_once_are_one_on_each",
    ),
    Fault(
        "a member that is back left alone for ever",
        "        return (self.circuit.wait_s > 0, self.circuit.trouble is None, self.load)\n",
        "        return (self.circuit.wait_s > 0, self.circuit.trouble is not None, self.load)\n",
        f"{POOL.partition('::')[0]}::test_one_that_is_back_is_tried_though_another_has_as_much_room",
    ),
    Fault(
        "our own rate taken for an outage of the server",
        "            if error.cause == NOT_THE_SERVERS:\n                raise\n",
        "",
        f"{POOL.partition('::')[0]}::test_a_member_whose_own_rate_is_used_up_is_not_away",
    ),
    Fault(
        "a rate kept by when calls were due",
        "                while (wait_s := self._wait_s(self._rate, ahead=0)) > 0:  # noqa: ASYNC110 - for a time, not "
        "for somebody\n"
        "                    await asyncio.sleep(wait_s)\n                self._begun_at.append(_now_s())\n",
        "                due_s = _now_s() + self._wait_s(self._rate, ahead=0)\n"
        "                await asyncio.sleep(due_s - _now_s())\n"
        "                self._begun_at.append(due_s)\n",
        f"{LIMITS}TestPace::test_a_loop_that_stood_still_wakes_them_late_and_it_is_kept",
    ),
    Fault(
        "a secret that a server repeats let through",
        "            data = data.replace(secret, ",
        "            data.replace(secret, ",
        f"{CLIENT}test_a_secret_that_an_answer_repeats_is_in_no_value[token]",
    ),
    Fault(
        "a server's words repeat the topic",
        "raise classify(await self._refusal(response), server=self.server, sent=body)",
        "raise classify(await self._refusal(response), server=self.server)",
        "acceptance/test_servers.py::test_a_topics_text_is_not_in_the_log[422]",
    ),
    Fault(
        "a trace is another after a restart",
        'return _digest(f"trace of {job}")[:32]',
        'return _digest(f"trace of {job} {os.getpid()}")[:32]',
        "acceptance/test_traces.py::test_the_trace_goes_on_after_a_kill",
    ),
    Fault(
        "servers are told of a span that nobody records",
        'before = _traceparent.set(f"00-{trace_id(job)}-{span_id}-01" if is_sent else "")',
        'before = _traceparent.set(f"00-{trace_id(job)}-{new_span_id()}-01" if is_sent else "")',
        "acceptance/test_traces.py::test_a_server_is_told_and_a_failure_is_an_error",
    ),
    Fault(
        "servers are told of traces though none are sent",
        'before = _traceparent.set(f"00-{trace_id(job)}-{span_id}-01" if is_sent else "")',
        'before = _traceparent.set(f"00-{trace_id(job)}-{span_id}-01")',
        "acceptance/test_traces.py::test_off_nothing_is_sent_loaded_or_told",
    ),
    Fault(
        "a unit that failed has no span",
        "            self._unit(fields, attempt, unit, attempt.units[unit], error)\n",
        "            pass\n",
        "acceptance/test_traces.py::test_a_server_is_told_and_a_failure_is_an_error",
    ),
    Fault(
        "the end waits for a receiver that says nothing",
        "        ending.join(END_S)\n",
        "        ending.join()\n",
        "acceptance/test_traces.py::test_a_receiver_in_trouble_costs_neither_work_nor_the_end[silent]",
    ),
    Fault(
        "OpenTelemetry's own words are in the log",
        'logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)',
        'logging.getLogger("opentelemetry").setLevel(logging.WARNING)',
        "acceptance/test_traces.py::test_a_receiver_in_trouble_costs_neither_work_nor_the_end[away]",
    ),
    Fault(
        "a job that the backend dies of each time tried for ever",
        "        return name in self.tested\n",
        "        return False\n",
        f"{OUTAGE}test_what_says_nothing_of_the_job_neither_clears_nor_blames_it[away]",
    ),
    Fault(
        "a GPU not freed when it passes on",
        "                await self._backend.free()\n",
        "                pass\n",
        f"{GPU}test_the_stage_that_had_it_last_takes_it_again_without_freeing_and_another_frees_it",
    ),
)

WEB = (
    Fault(
        "a text that reaches a page as markup",
        'return escape(_UNPRINTABLE.sub("\\ufffd", str(value)))',
        'return _UNPRINTABLE.sub("\\ufffd", str(value))',
        f"{WEB_PAGES}test_hostile_names_and_topics_are_text[/]",
    ),
    Fault(
        "a page that others may frame",
        "form-action 'none'; frame-ancestors 'none'",
        "form-action 'none'",
        f"{WEB_PAGES}test_the_headers_let_nothing_else_run_frame_or_be_guessed",
    ),
    Fault(
        "a file sent without the headers of a careful site",
        'given = {**headers, "Content-Type"',
        'given = {"Content-Type"',
        f"{WEB_PAGES}test_every_answer_has_the_headers_of_a_careful_site",
    ),
    Fault(
        "a stranger's name for this machine that is answered",
        "if not is_known(",
        "if False and not is_known(",
        f"{WEB_PAGES}test_a_strangers_name_that_was_made_to_lead_here_is_refused[evil.example.com:9469-/]",
    ),
    Fault(
        "any file of a job that is shown",
        "return _NAMES.fullmatch(name) is not None",
        "return bool(name)",
        f"{WEB_FILES}test_no_path_leads_out_of_a_job[secret.txt]",
    ),
    Fault(
        "a job's name that may lead elsewhere",
        """and not name.startswith(".") and "/" not in name""",
        "",
        f"{WEB_PAGES}test_no_name_leads_out_of_the_jobs[..%2ffailed]",
    ),
    Fault(
        "a link planted in a job that is followed",
        "os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags",
        "os.O_RDONLY | os.O_CLOEXEC | flags",
        f"{WEB_FILES}test_links_are_not_followed_nor_pipes_waited_for",
    ),
    Fault(
        "sound that cannot be sought",
        "return None if asked.start is None else asked",
        "return None",
        f"{WEB_FILES}test_sound_can_be_sought[bytes=1000-1999-206-part0]",
    ),
    Fault(
        "a file cut short that looks whole",
        'raise ConnectionAbortedError(f"{file.name} became shorter")',
        "break",
        f"{WEB_FILES}test_a_file_that_becomes_shorter_is_not_taken_for_whole",
    ),
    Fault(
        "a look for nobody",
        "            if not self._watchers:\n                await self.aclose()",
        "            pass",
        f"{WEB_LIVE}test_all_who_watch_share_one_look_and_nobody_looks_for_nobody",
    ),
    Fault(
        "a look for each who asks",
        "if self._looking is None or self._looking.done():",
        "if True:",
        f"{WEB_LIVE}test_a_disk_that_hangs_costs_only_who_looks",
    ),
    Fault(
        "a change that is told only at the next look by the clock",
        "loop.call_soon_threadsafe(changed.set)",
        "pass",
        f"{WEB_LIVE}test_a_change_is_told_at_once",
    ),
    Fault(
        "whoever went away that is told as a bug",
        "        except ConnectionError:\n            raise  # whoever asked has gone",
        "        except ZeroDivisionError:\n            raise  # whoever asked has gone",
        f"{WEB_LIVE}test_who_goes_away_while_it_is_told_is_no_bug",
    ),
)

FAULTS = (
    *CLAIMS,
    *MOVES,
    *STORE,
    *BACKLOGS,
    *FILES,
    *GROUPS,
    *LANES,
    *ATTEMPTS,
    *GATES,
    *INTAKES,
    *WATCHERS,
    *UNITS,
    *WORKS,
    *FSCKS,
    *BACKUPS,
    *DOWNLOADS,
    *VOICES,
    *BACKENDS,
    *WEB,
)
