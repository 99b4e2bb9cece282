//! Leases, locks and rates, in this process and in Redis: every case is listed once and runs on both. What only Redis
//! can do to us is in `redis.rs`.

mod jobs;
mod line;
mod locks;
mod proxy;
mod redis;
pub mod rig;

use rig::{Backend, Rig, run};

macro_rules! cases {
    ($($area:ident { $($case:ident)+ })+) => {
        mod on_local {
            $(mod $area { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    use super::super::{Backend, Rig, run, $area};
                    run(Backend::Local, async |rig: &Rig| $area::$case(rig).await).await;
                }
            )+ })+
        }
        mod on_redis {
            $(mod $area { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    use super::super::{Backend, Rig, run, $area};
                    run(Backend::Redis, async |rig: &Rig| $area::$case(rig).await).await;
                }
            )+ })+
        }
    };
}

cases! {
    jobs {
        a_free_key_is_taken_and_renewed
        our_own_value_is_accepted_again
        a_higher_fence_takes_over_and_a_lower_one_is_refused
        the_same_fence_of_another_boot_is_refused
        a_missing_key_is_told_and_can_be_set_again
        a_key_of_an_owner_before_us_counts_as_missing
        a_release_takes_only_our_own_key
        a_lease_ends_with_its_ttl
        more_jobs_than_one_trip_takes_are_answered_one_by_one
        of_many_owners_the_highest_fence_wins
        an_owner_is_silent_when_its_key_was_missing_for_a_steady_ttl
        progress_is_that_of_the_present_owner
        signals_reach_every_process
        readers_of_a_source_share_its_rate
    }
    locks {
        a_lock_is_had_by_one_at_a_time
        tasks_never_overlap_whatever_the_mode
        a_guard_that_is_dropped_frees_its_lock
        a_lock_of_unknown_length_outlives_its_ttl
        a_lock_of_known_length_ends_and_stops_its_task
        a_stranger_neither_keeps_nor_gives_back
        a_wait_ends_in_time_and_leaves_nothing_behind
        an_answer_that_was_lost_is_recognised
    }
    line {
        first_come_first_served
        nobody_passes_the_line
        contenders_that_never_stop_are_served_in_the_order_of_their_places
        a_dead_waiter_is_skipped
        a_dead_waiter_that_was_handed_the_lock_is_skipped
        a_waiter_that_was_forgotten_stands_where_it_stood
        a_waiter_that_gives_up_leaves_the_line
        a_waiter_that_nobody_polls_does_not_hold_up_the_others
        the_lock_of_a_dead_holder_goes_to_the_first_in_line
        many_waiters_cost_no_more_than_their_places
    }
}
