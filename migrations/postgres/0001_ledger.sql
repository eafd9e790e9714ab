-- The stock ledger.
--
-- Ready to be distributed with Citus: every unique key holds its table's
-- distribution column (levels and movements by sku, decisions by id), there
-- are no foreign keys across them, and nothing runs in the database on the
-- hot path. Text keys compare as bytes (COLLATE "C"): faster, the same on
-- every machine, and the order in which SKUs are locked.

CREATE TABLE levels (
    sku       text   COLLATE "C" PRIMARY KEY,
    available bigint NOT NULL CHECK (available >= 0),
    version   bigint NOT NULL
) WITH (fillfactor = 50); -- room for HOT updates: a level changes once a batch, no index does

COMMENT ON TABLE  levels           IS 'How much of each SKU there is now.';
COMMENT ON COLUMN levels.sku       IS 'Stock keeping unit.';
COMMENT ON COLUMN levels.available IS 'Pieces that can be taken; equals the balance of the newest movement.';
COMMENT ON COLUMN levels.version   IS 'Number of movements so far; equals the version of the newest movement.';

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
CREATE INDEX decisions_by_seq ON decisions USING brin (seq);

COMMENT ON TABLE  decisions            IS 'One line for each command ever decided; never changed.';
COMMENT ON COLUMN decisions.seq        IS 'Place in the ledger''s order; grows, with gaps.';
COMMENT ON COLUMN decisions.decided_at IS 'When, by this database''s clock; no rule reads it.';
COMMENT ON COLUMN decisions."offset"   IS 'Offset of the record that made the decision; null for an operator''s command.';
COMMENT ON COLUMN decisions.partition  IS 'Partition of that record.';
COMMENT ON COLUMN decisions.kind       IS 'What the command is about: 1 order.created, 10 stock adjustment.';
COMMENT ON COLUMN decisions.accepted   IS 'Whether it was accepted.';
COMMENT ON COLUMN decisions.id         IS 'The id its producer gave the command: order id or adjustment id.';
COMMENT ON COLUMN decisions.topic      IS 'Topic of the record that made the decision.';
COMMENT ON COLUMN decisions.digest     IS 'Fingerprint of the content decided: first 16 bytes of BLAKE3.';
COMMENT ON COLUMN decisions.detail     IS 'JSON as told: lines with balances when accepted, reasons when rejected.';

CREATE TABLE movements (
    version     bigint   NOT NULL,
    quantity    bigint   NOT NULL,
    balance     bigint   NOT NULL,
    seq         bigint   NOT NULL,
    "offset"    bigint,
    partition   integer,
    kind        smallint NOT NULL,
    sku         text     COLLATE "C" NOT NULL,
    id          text     COLLATE "C" NOT NULL,
    PRIMARY KEY (sku, version)
);

CREATE INDEX movements_by_seq ON movements USING brin (seq);

COMMENT ON TABLE  movements           IS 'One line for each change of a level; never changed.';
COMMENT ON COLUMN movements.version   IS 'The version it gave the level: 1, 2, 3 … without gaps for each SKU.';
COMMENT ON COLUMN movements.quantity  IS 'Pieces added (positive) or taken (negative).';
COMMENT ON COLUMN movements.balance   IS 'The level after it.';
COMMENT ON COLUMN movements.seq       IS 'The decision that made it (decisions.seq).';
COMMENT ON COLUMN movements."offset"  IS 'Offset of the record the command came from; null for an operator''s command.';
COMMENT ON COLUMN movements.partition IS 'Partition of that record.';
COMMENT ON COLUMN movements.kind      IS 'What the command is about (decisions.kind).';
COMMENT ON COLUMN movements.sku       IS 'Stock keeping unit.';
COMMENT ON COLUMN movements.id        IS 'The command that caused it (decisions.id).';

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
