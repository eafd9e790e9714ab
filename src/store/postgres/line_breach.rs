//! What an audit says of a line and a movement that do not fit, in SQL: the same on one server and on a distributed ledger.

/// What is wrong with a line or a movement, `odd`, whose decision, `d`, has its id.
macro_rules! line_breach {
    () => {
        r#"CASE
                WHEN odd.sku IS NULL
                    THEN json_build_object('not_moved', json_build_object(
                        'id', odd.line_id, 'item', json_build_array(odd.line_sku, odd.line_location)))
                WHEN d.id IS NULL
                    THEN json_build_object('movement_undecided', json_build_object(
                        'item', json_build_array(odd.sku, odd.location), 'version', odd.version, 'id', odd.id))
                WHEN d.seq <> odd.seq
                    THEN json_build_object('movement_sequence', json_build_object(
                        'item', json_build_array(odd.sku, odd.location), 'version', odd.version, 'id', odd.id,
                        'seq', odd.seq, 'decided', d.seq))
                WHEN NOT d.accepted
                    THEN json_build_object('rejected_moved', json_build_object(
                        'id', odd.id, 'version', odd.version, 'item', json_build_array(odd.sku, odd.location)))
                WHEN odd.is_as_said
                    THEN json_build_object('movement_record', json_build_object(
                        'id', odd.id, 'version', odd.version, 'item', json_build_array(odd.sku, odd.location),
                        'record', json_build_array(odd.partition, odd."offset"),
                        'decided', json_build_array(odd.said_partition, odd.said_offset)))
                ELSE json_build_object('movement_other', json_build_object(
                    'id', odd.id, 'version', odd.version, 'item', json_build_array(odd.sku, odd.location),
                    'quantity', odd.quantity, 'balance', odd.balance, 'detail', left(d.detail, 200))) END::text"#
    };
}
pub(super) use line_breach;
