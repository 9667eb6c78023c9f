//! The properties, one file each.

mod acknowledged_log_stays;
mod acknowledged_survives;
mod bound_once;
mod committed_never_changes;
mod converges;
mod demands_hold;
mod deposed_change_nothing;
mod disruption_budget;
mod endpoints_ready;
mod epochs_rise;
mod equal_states;
mod grace_once;
mod leases_end;
mod leases_last;
mod linearizable;
mod never_over_created;
mod never_overcommitted;
mod never_resurrected;
mod no_early_eviction;
mod once_only;
mod one_identity;
mod one_leader_a_term;
mod one_node_at_once;
mod reads_current;
mod refused_changes_nothing;
mod removed_after_end;
mod revision_order;
mod revisions_agree;
mod revisions_grow;
mod rollout_bounds;
mod runs_where_bound;
mod status_forward;
mod votes_last;
mod watch_atomic;
mod watch_gapless;
mod watch_order;
mod watch_resume;

use crate::property::Property;

/// All of them: those of the log and the store first, then those of the whole plane.
pub static ALL: &[Property] = &[
    one_leader_a_term::PROPERTY,
    votes_last::PROPERTY,
    acknowledged_log_stays::PROPERTY,
    committed_never_changes::PROPERTY,
    equal_states::PROPERTY,
    epochs_rise::PROPERTY,
    deposed_change_nothing::PROPERTY,
    refused_changes_nothing::PROPERTY,
    once_only::PROPERTY,
    linearizable::PROPERTY,
    revision_order::PROPERTY,
    revisions_grow::PROPERTY,
    revisions_agree::PROPERTY,
    acknowledged_survives::PROPERTY,
    watch_order::PROPERTY,
    watch_gapless::PROPERTY,
    watch_atomic::PROPERTY,
    watch_resume::PROPERTY,
    leases_last::PROPERTY,
    leases_end::PROPERTY,
    reads_current::PROPERTY,
    bound_once::PROPERTY,
    never_overcommitted::PROPERTY,
    runs_where_bound::PROPERTY,
    one_node_at_once::PROPERTY,
    one_identity::PROPERTY,
    demands_hold::PROPERTY,
    removed_after_end::PROPERTY,
    never_resurrected::PROPERTY,
    grace_once::PROPERTY,
    status_forward::PROPERTY,
    endpoints_ready::PROPERTY,
    never_over_created::PROPERTY,
    rollout_bounds::PROPERTY,
    no_early_eviction::PROPERTY,
    disruption_budget::PROPERTY,
    converges::PROPERTY,
];
