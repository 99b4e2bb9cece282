//! The scripts, each compiled into the binary and known to Redis by its hash.

use std::sync::LazyLock;

use ::redis::Script;

type Lazy = LazyLock<Script>;

pub(super) static ACQUIRE: Lazy = LazyLock::new(|| Script::new(include_str!("acquire.lua")));
pub(super) static RENEW: Lazy = LazyLock::new(|| Script::new(include_str!("renew.lua")));
pub(super) static RELEASE: Lazy = LazyLock::new(|| Script::new(include_str!("release.lua")));
pub(super) static ALIVE: Lazy = LazyLock::new(|| Script::new(include_str!("alive.lua")));
pub(super) static RATE: Lazy = LazyLock::new(|| Script::new(include_str!("rate.lua")));

pub(super) static LOCK_TAKE: Lazy = LazyLock::new(|| of_line(include_str!("lock_take.lua")));
pub(super) static LOCK_GIVE_BACK: Lazy =
    LazyLock::new(|| of_line(include_str!("lock_give_back.lua")));
pub(super) static LOCK_TICK: Lazy = LazyLock::new(|| of_line(include_str!("lock_tick.lua")));
pub(super) static LOCK_REJOIN: Lazy = LazyLock::new(|| of_line(include_str!("lock_rejoin.lua")));

/// With what the scripts of locks share before it.
fn of_line(script: &str) -> Script {
    Script::new(&format!("{}\n{script}", include_str!("line.lua")))
}
