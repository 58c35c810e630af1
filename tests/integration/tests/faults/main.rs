//! The faults' catalogue (`faults.md`): every entry with the tests that hold it, here and in the other
//! suites. A unit test (`src/catalogue.rs`) checks that each entry has a row and each name exists.
//!
//! Whatever is killed, fails, is full, damaged, stuck or late: `delete --force` returns 0 in ten
//! seconds and leaves nothing, and the id can be used again. A sample of all points here; each of
//! them, many times as many races and larger numbers with `CORTEN_FAULTS_STEP=1` (`make faults`).
//!
//! | entry | tests |
//! |---|---|
//! | R1 | `faults::killed::r1_create_killed`, `faults::killed::r1_create_killed_with_a_user_namespace`, `faults::steps::r1_steps_of_create`, `faults::steps::r1_steps_of_init`, `state::killed_create_is_deletable`, `state::killed_create_frees_the_id_after_delete` |
//! | R2 | `faults::killed::r2_start_killed`, `faults::steps::r2_steps_of_start`, `state::killed_start_is_deletable` |
//! | R3 | `faults::killed::r3_delete_killed`, `faults::killed::r3_force_killed`, `faults::steps::r3_steps_of_delete`, `hooks::poststop_runs_once` |
//! | R4 | `faults::killed::r4_exec_killed`, `faults::killed::r4_exec_detached_killed`, `faults::killed::r4_run_killed`, `faults::killed::r4_kill_killed`, `faults::killed::r4_pause_and_resume_killed`, `faults::killed::r4_update_killed`, `faults::steps::r4_steps_of_exec`, `faults::steps::r4_steps_of_update_and_pause` |
//! | R5 | `faults::killed::r5_init_killed_fails_the_create`, `faults::killed::r5_init_killed_fails_the_start`, `faults::killed::r5_init_that_lets_nobody_in_fails_the_start`, `faults::killed::r5_middle_of_an_exec_killed`, `faults::killed::r1_create_killed` |
//! | R6 | `faults::disk::r6_no_space`, `faults::disk::r6_no_inodes`, `faults::disk::r6_full_while_it_lives`, `faults::disk::r6_read_only_while_it_lives`, `state::unwritable_root_fails_cleanly` |
//! | R7 | `faults::journal::r7_cut_anywhere`, `faults::journal::r7_bits_turned`, `faults::journal::r7_members_changed`, `faults::journal::r7_directories_damaged`, `faults::journal::r7_of_another_user`, `faults::journal::r7_the_others_are_listed`, `state::broken_journal_is_deletable` |
//! | R8 | `faults::journal::r8_a_pid_that_is_used_again`, `state::reused_pid_is_stopped`, `state::reused_pid_is_never_signalled` |
//! | R9 | `faults::journal::r9_after_a_reboot`, `state::another_boot_is_stopped` |
//! | R10 | `faults::journal::r10_groups_removed_by_others`, `faults::journal::r10_moved_to_another_group`, `faults::journal::r10_a_group_that_was_there_can_be_used_again` |
//! | R11 | `faults::stuck::r11_frozen_container`, `faults::stuck::r11_frozen_exec_of_a_dead_container`, `faults::stuck::r11_frozen_group_below`, `faults::stuck::r11_frozen_group_above`, `lifecycle::a_paused_container_can_be_killed`, `exec::exec_in_a_paused_container_is_refused` |
//! | R12 | `faults::stuck::r12_many_zombies`, `faults::stuck::r12_many_groups_below`, `cgroups::groups::delete_removes_sub_cgroups` |
//! | R13 | `faults::stuck::r13_fork_bomb_without_pid_namespace`, `faults::stuck::r13_many_processes`, `cgroups::v2_groups::v2_kill_ends_a_fork_bomb` |
//! | R14 | `faults::stuck::r14_a_program_that_never_ends`, `faults::stuck::r14_a_create_that_never_ends` |
//! | R15 | `faults::failing::r15_create_fails`, `faults::failing::r15_create_with_a_user_namespace_fails`, `faults::failing::r15_run_fails`, `faults::failing::r15_start_fails`, `faults::failing::r15_exec_fails`, `faults::failing::r15_exec_detached_fails`, `faults::failing::r15_kill_fails`, `faults::failing::r15_pause_and_resume_fail`, `faults::failing::r15_update_fails`, `faults::failing::r15_delete_fails`, `faults::failing::r15_force_fails`, `faults::failing::r15_state_list_and_ps_fail`, `faults::failing::r15_closing_fails`, `faults::failing::r15_delete_of_a_running_container_fails`; ENOSYS: `security::without::the_same_or_refused` |
//! | R16 | `faults::caller::r16_few_descriptors`, `faults::caller::r16_little_address_space`, `faults::caller::r16_few_processes`, `cli::p14_no_standard_streams` |
//! | R17 | `faults::caller::r17_signals_ignored_and_blocked`, `faults::caller::r17_odd_umask_and_directory`, `faults::caller::r17_nothing_in_the_environment`, `faults::caller::r17_without_proc`, `process::signals_are_not_blocked_or_ignored` |
//! | R18 | `process::args_not_found_fail_create_with_the_peers_words`, `process::args_without_permission_fail_create`, `process::args_of_a_wrong_format_fail_start`, `process::args_may_be_a_script`, `exec::exec_of_an_absent_program_is_255`, `lifecycle::the_program_may_end_before_start_returns`, `faults::disk::r21_root_on_a_mount_that_allows_little` |
//! | R19 | `faults::limits::r19_memory_too_small` |
//! | R20 | `faults::limits::r20_few_pids`, `faults::limits::r20_little_processor`, `faults::limits::r20_little_processor_to_die`, `faults::limits::r20_rlimits_of_zero`, `systemd::scopes::one_process_is_enough` |
//! | R21 | `faults::disk::r21_root_on_a_mount_that_allows_little`, `faults::disk::r21_root_is_a_link_or_the_hosts`, `faults::disk::r21_root_is_deleted`, `rootfs::overlay_as_a_root`, `rootfs::root_may_be_a_mount_point` |
//! | R22 | `faults::limits::r22_many_of_everything`, `faults::limits::r22_time_is_linear`, `badinput::config_nested_very_deep`, `badinput::config_that_is_huge`, `badinput::duplicate_keys_do_not_crash`, `badinput::strings_with_nul`, `badinput::config_that_is_not_utf8`, `badinput::numbers_out_of_range`, `badinput::huge_argument_lists` |
//! | R23 | `seccomp::unknown_words_are_refused`, `seccomp::unknown_names_are_ignored`, `seccomp::errno_ret_of_another_action_is_refused`, `seccomp::large_profile`, `seccomp::notify_metadata_without_path_is_refused`, `seccomp::notify_absent_socket_is_refused` |
//! | R24 | `faults::stuck::r24_hooks_that_hang`, `faults::stuck::r24_hooks_that_talk`, `faults::stuck::r24_hooks_that_kill_the_runtime`, `hooks::timeout_holds_although_a_child_keeps_the_pipe`, `hooks::failure_by_a_signal_says_so`, `hooks::absent_program_is_an_error` |
//! | R25 | `faults::races::r25_creates_of_one_id`, `faults::races::r25_creates_of_different_ids`, `lifecycle::one_of_two_creates_wins` |
//! | R26 | `faults::races::r26_random_schedules`, `faults::races::r26_whoever_asks_while_it_is_deleted`, `state::commands_at_the_same_time`, `state::deletes_at_the_same_time` |
//! | R27 | `faults::races::r27_updates_race_the_exit`, `faults::failing::r15_update_fails`, `cgroups::update::update_that_fails_changes_nothing`, `cgroups::v2_limits::v2_update_that_fails_changes_nothing` |
//! | R28 | `faults::caller::r28_console_sockets`, `process::console_socket_that_is_absent_fails` |
//! | R29 | `faults::steps::r29_slow_calls` |
//! | R30 | `cli::systemd_cgroup_without_systemd_says_so`, `systemd::scopes::a_create_that_is_killed_leaves_no_unit`, `systemd::user::rootless_without_a_manager_is_told_so`, `systemd::scopes::a_systemd_that_executes_itself_anew_is_waited_for`; one that is silent: unit tests of `cgroup/systemd/bus.rs` |
//! | H1 | `containerd::restart::killed_while_running`, `containerd::restart::restarted_often`, `cri::survival::many_restarts` |
//! | H2 | `shim::delivery::down_at_the_exit`, `shim::delivery::down_from_the_beginning`, `containerd::restart::exits_while_killed`, `containerd::restart::exits_while_down_for_long`, `cri::survival::exits_while_down` |
//! | H3 | `shim::delivery::stalled_for_ten_seconds`, `shim::delivery::stalled_for_many_events`, `shim::delivery::cut_in_the_middle`, `shim::delivery::at_most_repeated`, `containerd::restart::exits_while_stopped` |
//! | H4 | `shim::injection::killed_anywhere_in_create`, `shim::injection::killed_anywhere_in_start`, `shim::injection::killed_anywhere_in_exec`, `shim::injection::killed_anywhere_in_delete`, `shim::crash::delete_after_sigkill`, `shim::faults::sigkill_at_any_moment` |
//! | H5 | `shim::crash::sigterm_with_a_container`, `shim::crash::sigterm_without_containers`, `shim::crash::harmless_signals`, `shim::crash::sigusr1_dumps` |
//! | H6 | `shim::hangs::a_hook_of_create_until_the_deadline`, `shim::hangs::delete_until_the_deadline`, `shim::crash::the_runtime_was_killed`, `shim::races::the_worker_of_a_start_is_killed` |
//! | H7 | `shim::stdio::a_stuck_reader_does_not_hold_the_end`, `shim::stdio::a_missing_reader_does_not_hold_the_end`, `shim::stdio::output_to_a_full_disk`, `shim::stdio::a_reader_comes_back` |
//! | H8 | `shim::exits::a_thousand_execs`, `shim::exits::orphans_are_reaped`, `shim::soak::two_thousand_exits`; make soak |
//! | H9 | `shim::faults::execs_race_the_exit`, `shim::events::the_init_exits_last`, `shim::races::an_exec_is_deleted_with_its_container`, `shim::model::random_lives` |
//! | H10 | `shim::abuse::garbage`, `shim::abuse::a_frame_that_is_too_large`, `shim::abuse::half_a_request`, `shim::abuse::five_hundred_idle_clients`, `shim::abuse::a_client_that_never_reads`, `shim::abuse::unknown_service_and_method` |
//! | H11 | `shim::abuse::few_descriptors`, `shim::races::no_descriptors_for_a_new_process`, `shim::injection::failing_calls` |
//! | H12 | `shim::model::many_containers_of_one_shim`, `shim::stdio::no_descriptors_stay`, `shim::faults::a_hundred_lives`, `shim::faults::memory` |
//! | H13 | `shim::faults::the_binary_is_replaced`, `shim::bootstrap::plain_answer`, `shim::bootstrap::json_answer`, `shim::bootstrap::protobuf_answer` |
//! | H14 | `shim::resources::out_of_memory`, `shim::resources::out_of_memory_of_an_exec`, `shim::resources::no_false_alarm` |
//! | H15 | `shim::injection::the_bundle_goes_away_in_every_state`, `shim::injection::no_space_in_the_bundle`, `shim::crash::the_bundle_is_full` |
//! | H16 | `shim::faults::the_same_calls_at_once`, `shim::errors::created_twice`, `shim::errors::started_twice`, `shim::errors::deleted_twice` |
//! | H17 | `shim::faults::checkpoint_that_fails`, `shim::faults::restore_of_nothing` |
//! | H18 | `cri::survival::upgraded` |

mod caller;
mod disk;
mod failing;
mod journal;
mod killed;
mod limits;
mod races;
mod steps;
mod stuck;
mod subject;
mod tally;
mod tracer;
mod verb;

use std::process::ExitCode;

use corten_integration::suite;

fn main() -> ExitCode {
    let groups = [
        killed::TESTS,
        steps::TESTS,
        failing::TESTS,
        journal::TESTS,
        races::TESTS,
        disk::TESTS,
        caller::TESTS,
        limits::TESTS,
        stuck::TESTS,
    ];
    let code = suite(&groups.concat());
    tally::print();
    code
}
