//! The scripts that run in Redis, each with what is common before it.

use redis::Script;

/// A script with the flags that Redis looks at before it runs it.
macro_rules! script {
    ($head:literal, $file:literal) => {
        Script::new(concat!(
            $head,
            "\n",
            include_str!("scripts/common.lua"),
            include_str!(concat!("scripts/", $file, ".lua"))
        ))
    };
}

/// All of them.
pub(super) struct Scripts {
    pub(super) admit: Script,
    pub(super) sent: Script,
    pub(super) settle: Script,
    pub(super) settle_found: Script,
    pub(super) give_back: Script,
    pub(super) unsettled: Script,
    pub(super) begin_read: Script,
    pub(super) store_levels: Script,
    pub(super) status: Script,
    pub(super) recount: Script,
    pub(super) meet_topic: Script,
    pub(super) set_filled: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            // The one that makes something new is refused before its first write when memory is full; those that bring
            // something to its end never are.
            admit: script!("#!lua", "admit"),
            sent: script!("#!lua flags=allow-oom", "sent"),
            settle: script!("#!lua flags=allow-oom", "settle"),
            settle_found: script!("#!lua flags=allow-oom", "settle_found"),
            give_back: script!("#!lua flags=allow-oom", "give_back"),
            store_levels: script!("#!lua flags=allow-oom", "store_levels"),
            unsettled: script!("#!lua flags=no-writes", "unsettled"),
            begin_read: script!("#!lua flags=no-writes", "begin_read"),
            status: script!("#!lua flags=no-writes", "status"),
            recount: script!("#!lua flags=allow-oom", "recount"),
            meet_topic: script!("#!lua flags=allow-oom", "meet_topic"),
            set_filled: script!("#!lua flags=allow-oom", "set_filled"),
        }
    }
}
