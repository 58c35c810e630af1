//! The attacks' catalogue (`attacks.md`): every entry with the tests that hold it, here and in the
//! other suites. A unit test (`src/catalogue.rs`) checks that each entry has a row and each name
//! exists. An attack counts as contained if the start was refused or the container runs, and in
//! either case the host is as it was, nothing of it is seen inside and nothing is left. Where a
//! packaged runtime is affected it is the positive control: the same attack has to work there.
//!
//! Races last for 10^5 swaps and more with `CORTEN_ATTACKS_SWAPS=100000`; a selection otherwise.
//!
//! | entry | tests |
//! |---|---|
//! | T-INV | `security::trace::policy_of_run`, `security::trace::policy_of_variants`, `security::trace::policy_of_exec`; control: crun; `security::readback::everything_asked_for_is_there`, `security::readback::each_look_sees_what_is_missing`, `security::readback::everything_asked_for_is_there_on_older_kernels` |
//! | T-ENOSYS | `security::without::the_same_or_refused`, `security::without::a_whole_life`, `security::without::joined_by_files` |
//! | P1 | `security::paths::p1_mount_target_swapped`, `security::paths::p1_mount_target_swapped_for_the_root`, `security::paths::p1_swapped_at_every_step` |
//! | P2 | `security::paths::p2_made_through_a_swapped_link` |
//! | P3 | `security::paths::p3_standing_links`, `rootfs::symlink_destination_stays_inside`, `rootfs::symlink_loop_is_refused` |
//! | P4 | `rootfs::symlink_proc_is_refused`, `rootfs::mount_over_proc_is_refused`, `rootfs::mount_over_proc_files_of_the_allowed_list` |
//! | P5 | `security::paths::p5_dev_is_a_link`, `security::paths::p5_cgroup_subsystems_are_links`; control: runc, crun |
//! | P6 | `rootfs::symlink_dangling_destination_works` |
//! | P7 | `security::paths::p7_copy_up_of_odd_things`, `security::paths::p7_copy_up_while_swapped` |
//! | P8 | as P1, F3, X1 |
//! | P9 | `security::paths::p9_bind_source_swapped` |
//! | X1 | `security::procfs::x1_false_kernel_files`, `security::procfs::x1_proc_mounted_below_a_swapped_name` |
//! | X2 | as X1, D1 |
//! | X3 | as P4 |
//! | X4 | `namespaces::sysctl_tricks_are_refused`, `namespaces::sysctl_of_the_host_is_refused`, `namespaces::sysctl_of_a_namespace_that_is_the_hosts_is_refused` |
//! | X5 | `security::procfs::x5_release_agent` |
//! | D1 | `security::devices::d1_masks_hide`, `security::devices::d1_many_masks`, `security::devices::d1_masks_while_dev_is_swapped` |
//! | D2 | `security::devices::d2_d3_console`, `security::devices::d2_exec_with_a_fifo_for_ptmx` |
//! | D3 | `security::devices::d2_d3_console`; control: crun |
//! | D4 | `security::devices::d4_false_dev_null`; control: crun |
//! | D5 | `security::devices::d5_owners_of_the_streams` |
//! | D6 | `security::devices::d6_masks_fail_closed` |
//! | D7 | `rootfs::option_flags_of_a_bind`, `rootfs::option_flags_of_a_tmpfs`, `rootfs::option_recursive_attributes`, `security::without::the_same_or_refused` |
//! | F1 | `security::descriptors::f1_the_runtimes_binary`, `security::seal::f1_the_copy_in_huge_pages_is_sealed`, `security::seal::f1_the_copy_in_a_memfd_is_sealed` |
//! | F2 | `security::descriptors::f2_programs_of_the_host`, `security::descriptors::f2_leaked_descriptors`, `security::descriptors::f2_exec_into_a_link`, `security::descriptors::f2_what_the_waiting_init_holds` |
//! | F3 | `security::descriptors::f3_who_enters_can_not_be_opened`, `security::descriptors::f3_who_enters_has_nothing_of_the_host` |
//! | F4 | `security::descriptors::f4_mounts_churn_on_the_host` |
//! | F5 | `process::session_keyring_is_new`, `process::no_new_keyring_keeps_the_callers` |
//! | F6 | `exec::exec_without_terminal_is_a_session_of_its_own` |
//! | C1 | `security::identity::c1_exactly_the_five_sets`, `exec::exec_inheritable_capabilities_stay_empty` |
//! | C2 | `exec::exec_user_is_taken_literally`, `exec::exec_bad_users_are_refused` |
//! | C3 | `security::identity::c3_ids_out_of_range`, `process::user_ids_out_of_range_are_refused` |
//! | C4 | `security::identity::c4_what_the_host_lacks_is_an_error` |
//! | C5 | `seccomp::i386_calls_are_filtered_too`, `seccomp::x32_is_no_way_around`, `seccomp::newer_calls_are_enosys`, `seccomp::notify_listener_gets_fd_and_state` |
//! | C6 | `security::identity::c6_unmapped_ids_of_exec` |
//! | G1 | `rootfs::cgroup_mount_is_read_only`, `security::procfs::x5_release_agent` |
//! | G2 | `exec::exec_cgroup_may_not_escape`, `cgroups::path_with_dots_stays_below` |
//! | G3 | `badinput::ids_that_are_refused`, `badinput::id_of_great_length` |
//! | G4 | `badinput::huge_argument_lists`; no message carries the config |
//! | G5 | `rootfs::no_pivot_works` |
//! | G6 | memory safety: fuzzing |
//! | H1 | `hooks::env_is_exactly_the_hooks`, `hooks::env_of_the_container_is_not_the_hosts_hooks` |
//! | H2 | `badinput::annotations`, `cli::features_are_true` |
//! | H3 | as P2 |
//! | S1 | `shim::bootstrap::permissions`, `shim::abuse::another_user`, `shim::bootstrap::a_stale_socket_is_replaced` |
//! | S2 | `shim::bootstrap::permissions` |
//! | S3 | `shim::loggers::words_and_environment`, `shim::loggers::a_logger_that_does_not_exist`, `shim::loggers::a_logger_that_is_never_ready`, `shim::loggers::a_logger_ends_with_its_container` |
//! | S4 | `shim::stdio::no_descriptors_stay` |
//! | S5 | no checkpoint import |
//! | S6 | `rootless::subordinate_ids_through_newuidmap` |

mod descriptors;
mod devices;
mod identity;
mod paths;
mod procfs;
mod readback;
mod scene;
mod seal;
mod trace;
mod without;

use std::process::ExitCode;

use corten_integration::suite;

fn main() -> ExitCode {
    let groups = [
        trace::TESTS,
        without::TESTS,
        readback::TESTS,
        paths::TESTS,
        procfs::TESTS,
        devices::TESTS,
        descriptors::TESTS,
        seal::TESTS,
        identity::TESTS,
    ];
    suite(&groups.concat())
}
