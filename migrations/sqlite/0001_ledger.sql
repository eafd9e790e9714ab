-- The stock ledger. The columns mean what migrations/postgres/0001_ledger.sql says of them.

-- How much of each SKU there is now.
CREATE TABLE levels (
    sku       TEXT    PRIMARY KEY,                       -- stock keeping unit
    available INTEGER NOT NULL CHECK (available >= 0),   -- pieces that can be taken
    version   INTEGER NOT NULL                           -- number of movements so far
) STRICT, WITHOUT ROWID;

-- One line for each command ever decided; never changed.
CREATE TABLE decisions (
    seq        INTEGER PRIMARY KEY,  -- place in the ledger's order; grows, with gaps
    id         TEXT    NOT NULL,     -- the id its producer gave the command
    kind       INTEGER NOT NULL,     -- what it is about: 1 order.created, 10 stock adjustment
    accepted   INTEGER NOT NULL CHECK (accepted IN (0, 1)),
    digest     BLOB    NOT NULL,     -- fingerprint of the content decided
    detail     TEXT    NOT NULL,     -- JSON as told: lines with balances, or reasons
    topic      TEXT,                 -- the record that made the decision; null for an operator's command
    partition  INTEGER,
    "offset"   INTEGER,
    decided_at INTEGER NOT NULL,     -- microseconds since 1970 UTC; no rule reads it
    UNIQUE (id, kind)
) STRICT;

-- One line for each change of a level; never changed. In the ledger's order, so that a batch appends to its end:
-- kept by SKU instead, each movement of a batch would rewrite a page of its own. The audit proves that the
-- versions of a SKU are 1, 2, 3 …
CREATE TABLE movements (
    seq       INTEGER NOT NULL,      -- the decision that made it
    sku       TEXT    NOT NULL,      -- stock keeping unit; a decision moves each SKU once
    version   INTEGER NOT NULL,      -- the version it gave the level: 1, 2, 3 … for each SKU
    quantity  INTEGER NOT NULL,      -- pieces added (positive) or taken (negative)
    balance   INTEGER NOT NULL,      -- the level after it
    kind      INTEGER NOT NULL,      -- the command that caused it: decisions.kind and decisions.id
    id        TEXT    NOT NULL,
    partition INTEGER,               -- the record the command came from
    "offset"  INTEGER,
    PRIMARY KEY (seq, sku)
) STRICT, WITHOUT ROWID;

-- How far each source partition is applied.
CREATE TABLE positions (
    topic       TEXT    NOT NULL,
    partition   INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,    -- offset of the next record to apply; every record below it is done
    PRIMARY KEY (topic, partition)
) STRICT, WITHOUT ROWID;
