-- The stock ledger. The columns mean what migrations/postgres/0001_ledger.sql says of them.

-- How much of each SKU there is now, at each location.
CREATE TABLE levels (
    sku             TEXT    NOT NULL,                             -- stock keeping unit
    location        TEXT    NOT NULL,                             -- where; empty for the default location
    available       INTEGER NOT NULL,                             -- pieces that can be taken; below zero: promised
    version         INTEGER NOT NULL,                             -- number of movements so far
    backorder_limit INTEGER NOT NULL CHECK (backorder_limit >= 0), -- how far below zero orders may take it
    order_limit     INTEGER CHECK (order_limit > 0),              -- most pieces one order may take; null for any number
    PRIMARY KEY (sku, location),
    CHECK (available >= -backorder_limit)
) STRICT, WITHOUT ROWID;

-- One line for each command ever decided; never changed.
CREATE TABLE decisions (
    seq        INTEGER PRIMARY KEY,  -- place in the ledger's order; grows, with gaps
    id         TEXT    NOT NULL,     -- the id its producer gave the command
    kind       INTEGER NOT NULL,     -- what it is about: 1 order created, 2 cancelled, 3 returned, 4 confirmed,
                                     -- 5 released, 6 hold extended, 7 hold expired, 10 stock adjustment
    accepted   INTEGER NOT NULL CHECK (accepted IN (0, 1)),
    digest     BLOB    NOT NULL,     -- fingerprint of the content decided
    detail     TEXT    NOT NULL,     -- JSON object as told: lines with balances, or reasons
    topic      TEXT,                 -- the record that made the decision; null for an operator's command
    partition  INTEGER,
    "offset"   INTEGER,
    decided_at INTEGER NOT NULL,     -- microseconds since 1970 UTC; no rule reads it
    UNIQUE (id, kind)
) STRICT;

-- One line for each change of a level; never changed. In the ledger's order, so that a batch appends to its end:
-- kept by SKU instead, each movement of a batch would rewrite a page of its own. The audit proves that the
-- versions of a SKU at a location are 1, 2, 3 …
CREATE TABLE movements (
    seq       INTEGER NOT NULL,      -- the decision that made it
    sku       TEXT    NOT NULL,      -- stock keeping unit
    location  TEXT    NOT NULL,      -- where; a decision moves each SKU once at each location
    version   INTEGER NOT NULL,      -- the version it gave the level: 1, 2, 3 … for each SKU and location
    quantity  INTEGER NOT NULL,      -- pieces added (positive) or taken (negative)
    balance   INTEGER NOT NULL,      -- the level after it
    kind      INTEGER NOT NULL,      -- the command that caused it: decisions.kind and decisions.id
    id        TEXT    NOT NULL,
    partition INTEGER,               -- the record the command came from
    "offset"  INTEGER,
    PRIMARY KEY (seq, sku, location)
) STRICT, WITHOUT ROWID;

-- Lines of accepted orders that gave something back; the others are in their decision alone.
CREATE TABLE order_lines (
    order_id TEXT    NOT NULL,       -- the order: decisions.id of kind 1
    sku      TEXT    NOT NULL,
    location TEXT    NOT NULL,       -- where; empty for the default location
    deducted INTEGER NOT NULL,       -- pieces the order took
    returned INTEGER NOT NULL,       -- pieces of them given back, whatever by
    PRIMARY KEY (order_id, sku, location),
    CHECK (0 <= returned AND returned <= deducted)
) STRICT, WITHOUT ROWID;

-- Open holds: neither confirmed nor given back.
CREATE TABLE holds (
    order_id    TEXT    PRIMARY KEY NOT NULL, -- the order: decisions.id of kind 1
    expires_at  INTEGER NOT NULL,    -- when it ends: microseconds since 1970 UTC
    asked_until INTEGER,             -- until when an instance that saw it over has its end to itself
    topic       TEXT,                -- the partition the order came by; null for an operator's own order
    partition   INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX holds_by_expiry ON holds (expires_at);

-- Levels an operator's own command changed, until a running verifier announces them.
CREATE TABLE unannounced_levels (
    sku      TEXT NOT NULL,
    location TEXT NOT NULL,          -- where; empty for the default location
    PRIMARY KEY (sku, location)
) STRICT, WITHOUT ROWID;

-- How far each source partition is applied.
CREATE TABLE positions (
    topic       TEXT    NOT NULL,
    partition   INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,    -- offset of the next record to apply; every record below it is done
    PRIMARY KEY (topic, partition)
) STRICT, WITHOUT ROWID;
