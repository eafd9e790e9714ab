-- The stock ledger.
--
-- Ready to be distributed with Citus: every unique key holds its table's
-- distribution column (levels and movements by sku, decisions by id), there
-- are no foreign keys across them, and nothing runs in the database on the
-- hot path. Text keys compare as bytes (COLLATE "C"): faster, the same on
-- every machine, and the order in which SKUs are locked.

CREATE TABLE levels (
    sku             text   COLLATE "C" NOT NULL,
    location        text   COLLATE "C" NOT NULL,
    available       bigint NOT NULL,
    version         bigint NOT NULL,
    backorder_limit bigint NOT NULL CHECK (backorder_limit >= 0),
    order_limit     bigint CHECK (order_limit > 0),
    PRIMARY KEY (sku, location),
    CHECK (available >= -backorder_limit)
) WITH (fillfactor = 50); -- room for HOT updates: a level changes once a batch, no index does

COMMENT ON TABLE  levels                 IS 'How much of each SKU there is now, at each location.';
COMMENT ON COLUMN levels.sku             IS 'Stock keeping unit.';
COMMENT ON COLUMN levels.location        IS 'Where; empty for the default location.';
COMMENT ON COLUMN levels.available       IS 'Pieces that can be taken; equals the balance of the newest movement. Below zero: pieces promised beyond what was there.';
COMMENT ON COLUMN levels.version         IS 'Number of movements so far; equals the version of the newest movement.';
COMMENT ON COLUMN levels.backorder_limit IS 'How far below zero orders may take the level.';
COMMENT ON COLUMN levels.order_limit     IS 'Most pieces one order may take; null for any number.';

CREATE TABLE decisions (
    seq         bigint      NOT NULL,
    decided_at  timestamptz NOT NULL,
    "offset"    bigint,
    partition   integer,
    kind        smallint    NOT NULL,
    accepted    boolean     NOT NULL,
    id          text        COLLATE "C" NOT NULL,
    topic       text        COLLATE "C",
    digest      bytea       NOT NULL,
    detail      text        COLLATE "C" NOT NULL,
    PRIMARY KEY (id, kind)
);

-- For reading the ledger back in its order. BRIN, because rows are only ever appended, nearly in that order: a batch
-- writes next to nothing for it, and a stretch of places is found in the few blocks that hold it.
-- What is not summarised yet is read whole for every stretch, so it is not left to the next vacuum. A summary for each
-- 8 MiB: PostgreSQL keeps at most 256 requests until a worker comes by, once a minute, and logs each it cannot keep.
CREATE INDEX decisions_by_seq ON decisions USING brin (seq) WITH (autosummarize = on, pages_per_range = 1024);

-- Cancellations, which may come before their orders: all that a batch looks for whose ids are taken for new.
CREATE INDEX decisions_cancelled ON decisions (id) WHERE kind = 2;

COMMENT ON TABLE  decisions            IS 'One line for each command ever decided; never changed.';
COMMENT ON COLUMN decisions.seq        IS 'Place in the ledger''s order; grows, with gaps.';
COMMENT ON COLUMN decisions.decided_at IS 'When, by this database''s clock.';
COMMENT ON COLUMN decisions."offset"   IS 'Offset of the record that made the decision; null for an operator''s command.';
COMMENT ON COLUMN decisions.partition  IS 'Partition of that record.';
COMMENT ON COLUMN decisions.kind       IS 'What the command is about: 1 order created, 2 cancelled, 3 returned, 4 confirmed, 5 released, 6 hold extended, 7 hold expired, 10 stock adjustment.';
COMMENT ON COLUMN decisions.accepted   IS 'Whether it was accepted.';
COMMENT ON COLUMN decisions.id         IS 'The id its producer gave the command: order id; return, confirmation, extension or adjustment id.';
COMMENT ON COLUMN decisions.topic      IS 'Topic of the record that made the decision.';
COMMENT ON COLUMN decisions.digest     IS 'Fingerprint of the content decided: first 16 bytes of BLAKE3.';
COMMENT ON COLUMN decisions.detail     IS 'JSON object as told: lines with balances when accepted, reasons when rejected.';

CREATE TABLE movements (
    version     bigint   NOT NULL,
    quantity    bigint   NOT NULL,
    balance     bigint   NOT NULL,
    seq         bigint   NOT NULL,
    "offset"    bigint,
    partition   integer,
    kind        smallint NOT NULL,
    sku         text     COLLATE "C" NOT NULL,
    location    text     COLLATE "C" NOT NULL,
    id          text     COLLATE "C" NOT NULL,
    PRIMARY KEY (sku, version, location) -- in this order an insert seldom has to compare locations
);

CREATE INDEX movements_by_seq ON movements USING brin (seq) WITH (autosummarize = on, pages_per_range = 1024);

COMMENT ON TABLE  movements           IS 'One line for each change of a level; never changed.';
COMMENT ON COLUMN movements.version   IS 'The version it gave the level: 1, 2, 3 … without gaps for each SKU and location.';
COMMENT ON COLUMN movements.quantity  IS 'Pieces added (positive) or taken (negative).';
COMMENT ON COLUMN movements.balance   IS 'The level after it.';
COMMENT ON COLUMN movements.seq       IS 'The decision that made it (decisions.seq).';
COMMENT ON COLUMN movements."offset"  IS 'Offset of the record the command came from; null for an operator''s command.';
COMMENT ON COLUMN movements.partition IS 'Partition of that record.';
COMMENT ON COLUMN movements.kind      IS 'What the command is about (decisions.kind).';
COMMENT ON COLUMN movements.sku       IS 'Stock keeping unit.';
COMMENT ON COLUMN movements.location  IS 'Where; empty for the default location.';
COMMENT ON COLUMN movements.id        IS 'The command that caused it (decisions.id).';

CREATE TABLE order_lines (
    order_id text   COLLATE "C" NOT NULL,
    sku      text   COLLATE "C" NOT NULL,
    location text   COLLATE "C" NOT NULL,
    deducted bigint NOT NULL,
    returned bigint NOT NULL,
    PRIMARY KEY (order_id, sku, location),
    CHECK (0 <= returned AND returned <= deducted)
);

COMMENT ON TABLE  order_lines          IS 'Lines of accepted orders that gave something back; the others are in their decision alone.';
COMMENT ON COLUMN order_lines.order_id IS 'The order (decisions.id of kind 1).';
COMMENT ON COLUMN order_lines.sku      IS 'Stock keeping unit.';
COMMENT ON COLUMN order_lines.location IS 'Where; empty for the default location.';
COMMENT ON COLUMN order_lines.deducted IS 'Pieces the order took.';
COMMENT ON COLUMN order_lines.returned IS 'Pieces of them given back, whatever by.';

CREATE TABLE holds (
    expires_at  timestamptz NOT NULL,
    asked_until timestamptz,
    partition   integer,
    topic       text        COLLATE "C",
    order_id    text        COLLATE "C" PRIMARY KEY
);

CREATE INDEX holds_by_expiry ON holds (expires_at);

COMMENT ON TABLE  holds             IS 'Open holds: neither confirmed nor given back.';
COMMENT ON COLUMN holds.expires_at  IS 'When the hold ends, by this database''s clock.';
COMMENT ON COLUMN holds.asked_until IS 'Until when an instance that saw it over has its end to itself.';
COMMENT ON COLUMN holds.partition   IS 'Partition the order came by; null for an operator''s own order.';
COMMENT ON COLUMN holds.topic       IS 'Topic of that partition.';
COMMENT ON COLUMN holds.order_id    IS 'The order (decisions.id of kind 1).';

CREATE TABLE unannounced_levels (
    sku      text COLLATE "C" NOT NULL,
    location text COLLATE "C" NOT NULL,
    PRIMARY KEY (sku, location)
);

COMMENT ON TABLE  unannounced_levels          IS 'Levels an operator''s own command changed, until a running verifier announces them.';
COMMENT ON COLUMN unannounced_levels.sku      IS 'Stock keeping unit.';
COMMENT ON COLUMN unannounced_levels.location IS 'Where; empty for the default location.';

CREATE TABLE positions (
    topic       text    COLLATE "C" NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint  NOT NULL,
    PRIMARY KEY (topic, partition)
);

COMMENT ON TABLE  positions             IS 'How far each source partition is applied.';
COMMENT ON COLUMN positions.topic       IS 'Source topic.';
COMMENT ON COLUMN positions.partition   IS 'Source partition.';
COMMENT ON COLUMN positions.next_offset IS 'Offset of the next record to apply; every record below it is done.';

-- Places in the ledger's order are drawn for a whole batch at once (store::MAX_BATCH).
CREATE SEQUENCE ledger_seq AS bigint INCREMENT BY 100000 START WITH 100000;
