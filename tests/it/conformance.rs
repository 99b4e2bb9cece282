//! One suite for every job store: each case is written once against `dyn Store` and runs on every backend. After each
//! case the counts that claims rely on must equal the rows.
//!
//! A case that is not in the list below is never called, which the compiler reports.

mod caps;
mod claim;
mod control;
mod owner;
mod random;
mod read;
mod retention;
mod rig;
mod settle;
mod submit;

use rig::{Backend, Rig, run};

macro_rules! cases {
    ($($area:ident { $($case:ident)+ })+) => {
        mod sqlite {
            $(mod $area { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    use super::super::{Backend, Rig, run, $area};
                    run(Backend::Sqlite, async |rig: &Rig| $area::$case(rig).await).await;
                }
            )+ })+
        }
        mod postgres {
            $(mod $area { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    use super::super::{Backend, Rig, run, $area};
                    run(Backend::Postgres, async |rig: &Rig| $area::$case(rig).await).await;
                }
            )+ })+
        }
    };
}

cases! {
    submit {
        a_new_job_reads_back_as_it_was_given
        an_unknown_id_is_none
        the_same_request_and_spec_give_the_same_job
        a_request_is_found_with_the_hash_that_it_was_stored_with
        the_same_request_with_another_spec_is_reused
        a_request_id_belongs_to_its_tenant
        one_of_many_concurrent_submits_of_a_request_creates_the_job
        the_same_id_twice_is_the_same_job
        a_running_start_is_owned_at_once
        a_running_start_respects_the_caps
        a_running_start_is_refused_while_paused
    }
    claim {
        an_empty_queue_gives_nothing
        a_claim_raises_fence_and_attempt_and_names_the_owner
        priority_comes_first_then_age
        a_claim_takes_no_more_than_asked
        tenants_take_turns_by_work_done
        a_batch_is_shared_among_tenants
        the_cost_is_corrected_when_the_job_ends
        a_newcomer_starts_at_the_least_active_virtual_time
        a_tenant_that_was_served_alone_does_not_start_behind_those_who_come_later
        a_paused_tenant_is_passed_over
        pausing_everyone_stops_all_claims
        two_claimers_never_get_the_same_job
        no_claim_is_empty_while_a_job_is_ready
        a_backoff_hides_a_job_until_it_is_over
        a_job_that_this_version_can_not_read_fails_and_is_in_nobodys_way
        a_result_that_this_version_can_not_read_is_as_good_as_none
        the_claim_stays_flat_at_a_long_backlog
    }
    caps {
        the_tenant_cap_is_exact_under_concurrent_claimers
        the_source_cap_is_exact_under_concurrent_claimers
        a_full_source_blocks_only_its_own_jobs
        a_full_tenant_blocks_only_its_own_jobs
        inline_runs_count_in_the_caps_of_claims
        a_cap_of_zero_lets_none_run
        an_end_frees_the_slots
        a_job_that_is_cancelling_still_holds_its_slots
        a_full_queue_takes_no_more_of_that_tenant
    }
    settle {
        success_stores_the_result
        failure_stores_the_error
        a_retry_waits_its_delay_and_counts_as_an_attempt
        a_retry_without_delay_is_ready_at_once
        a_hand_back_takes_the_attempt_back_and_keeps_the_age
        a_live_stream_is_never_queued
        only_a_live_stream_may_end_cancelled_without_a_cancel
        a_stale_fence_is_not_the_owner
        settling_twice_tells_the_first_end
        settling_a_deleted_job_finds_nothing
        a_cancel_of_a_queued_job_ends_it
        a_cancel_of_a_running_job_is_committed_before_it_stops
        whatever_is_settled_after_a_cancel_is_cancelled
        cancelling_twice_is_accepted
        a_cancel_after_the_end_is_too_late
        a_cancel_races_a_settle_and_one_wins
        a_delayed_job_can_be_cancelled
    }
    owner {
        a_renewal_tells_what_became_of_each_job
        a_renewal_extends_the_lease
        a_sweep_of_all_takes_every_owned_job
        a_sweep_leaves_live_leases_alone
        overdue_jobs_come_in_pages
        a_sweep_of_silent_owners_checks_fence_and_lease_again
        a_swept_job_waits_no_backoff
        a_job_without_attempts_left_fails
        a_swept_attempt_is_not_charged_as_a_whole_export
        a_live_stream_fails_with_its_owner
        a_job_that_was_cancelling_ends_cancelled
        a_sweep_is_bounded
        many_sweepers_take_each_job_once
        heartbeats_list_the_live_workers
    }
    read {
        the_list_is_newest_first_and_of_one_tenant
        the_list_filters_by_state
        the_list_filters_by_all_labels
        the_list_filters_by_time
        pages_are_complete_and_stable_under_inserts
        the_queue_position_counts_who_comes_first
        only_a_queued_job_has_a_position
        standings_tell_of_those_that_are_there
    }
    retention {
        only_an_ended_job_can_be_deleted
        a_result_expires_once_after_its_grace
        a_purge_takes_old_ends_whose_result_is_gone
        the_sweeps_of_retention_are_bounded
    }
    control {
        limits_are_set_merged_and_reset
        an_unknown_limit_changes_nothing
        pauses_are_listed
        the_token_key_is_made_once
        migrating_again_changes_nothing
        many_processes_may_open_a_new_queue_at_once
        an_insert_wakes_an_idle_claimer
        a_freed_slot_wakes_an_idle_claimer
        an_announcement_before_the_wait_is_not_lost
        waiting_ends_with_its_timeout
        a_second_process_is_told_about_lease_url
        a_guard_that_is_dropped_lets_the_next_one_in
    }
    random {
        any_order_of_operations_keeps_the_counts_true
        concurrent_operations_keep_the_counts_true
    }
}
