PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO _sqlx_migrations VALUES(1,'ledger','2026-11-28 10:09:19',1,X'e5c2174779e227ca3a14f0a5e6d3c7a1abee13e12e2695947bcb5fb29f7e59e624f1ed37f3c9f7c0a5e9bf982201025f',2848295);
INSERT INTO _sqlx_migrations VALUES(2,'topic identity','2026-11-28 10:09:19',1,X'36fbec9e2c2e44fc767217e54ea29f56aef26ef3a38e710d598ad740a5bd5b37b7ed32d84499711c25f6a28f96306fce',1075178);
INSERT INTO _sqlx_migrations VALUES(3,'decisions of orders','2026-11-28 10:09:19',1,X'955bff3149041516ed98425453e84a4c39fe31884ebbbcf2724274f612873098afa5dc3603304b4ecd3c93dab4d9176f',1028760);
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
INSERT INTO levels VALUES('MUG','',96,2,0,NULL);
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
INSERT INTO decisions VALUES(1,'a-1',10,1,X'076914a8331f5c7bf823bc5f1b06ca12','{"lines":[{"sku":"MUG","quantity":100,"balance":100,"version":1}]}','NAME.adjustments',0,0,1795860562093832);
INSERT INTO decisions VALUES(2,'a-2',10,0,X'0441cdcf5c75ee8848714a418769dfb1','{"reasons":[{"reason":"invalid_order","detail":"quantity must be a whole number, is a string"}]}','NAME.adjustments',0,1,1795860562093832);
INSERT INTO decisions VALUES(3,'o-5',1,0,X'04c7166e2c038e6207b53bb43a8600bc','{"reasons":[{"reason":"invalid_order","detail":"hold_seconds must be a whole number, is a string"}]}','NAME.orders',1,0,1795860562664626);
INSERT INTO decisions VALUES(4,'o-1',1,0,X'4300b9f9447edff289436e74201cfb0f','{"reasons":[{"reason":"invalid_order","line":1,"detail":"quantity must be a whole number, is a string"}]}','NAME.orders',0,0,1795860562664626);
INSERT INTO decisions VALUES(5,'o-2',1,0,X'31a9746971a7712c3e81474819404142','{"reasons":[{"reason":"invalid_order","line":1,"detail":"quantity must be a whole number written without fraction or exponent, is 2.0"},{"reason":"invalid_order","line":2,"detail":"quantity must be a whole number written without fraction or exponent, is 1.5"}]}','NAME.orders',0,1,1795860562664626);
INSERT INTO decisions VALUES(6,'o-4',1,1,X'be830bc3969707852332e3b110632845','{"lines":[{"sku":"MUG","quantity":4,"balance":96}]}','NAME.orders',0,3,1795860562664626);
INSERT INTO decisions VALUES(7,'r-1',3,0,X'7014d6915080777e200c45bc221e052e','{"reasons":[{"reason":"invalid_order","line":1,"detail":"quantity must be a whole number, is a string"}]}','NAME.orders',0,4,1795860562664626);
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
INSERT INTO movements VALUES(1,'MUG','',1,100,100,10,'a-1',0,0);
INSERT INTO movements VALUES(6,'MUG','',2,-4,96,1,'o-4',0,3);
CREATE TABLE order_lines (
    order_id TEXT    NOT NULL,       -- the order: decisions.id of kind 1
    sku      TEXT    NOT NULL,
    location TEXT    NOT NULL,       -- where; empty for the default location
    deducted INTEGER NOT NULL,       -- pieces the order took
    returned INTEGER NOT NULL,       -- pieces of them given back, whatever by
    PRIMARY KEY (order_id, sku, location),
    CHECK (0 <= returned AND returned <= deducted)
) STRICT, WITHOUT ROWID;
CREATE TABLE holds (
    order_id    TEXT    PRIMARY KEY NOT NULL, -- the order: decisions.id of kind 1
    expires_at  INTEGER NOT NULL,    -- when it ends: microseconds since 1970 UTC
    asked_until INTEGER,             -- until when an instance that saw it over has its end to itself
    topic       TEXT,                -- the partition the order came by; null for an operator's own order
    partition   INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE unannounced_levels (
    sku      TEXT NOT NULL,
    location TEXT NOT NULL,          -- where; empty for the default location
    PRIMARY KEY (sku, location)
) STRICT, WITHOUT ROWID;
CREATE TABLE positions (
    topic       TEXT    NOT NULL,
    partition   INTEGER NOT NULL,
    next_offset INTEGER NOT NULL, published_offset INTEGER, topic_id TEXT,    -- offset of the next record to apply; every record below it is done
    PRIMARY KEY (topic, partition)
) STRICT, WITHOUT ROWID;
INSERT INTO positions VALUES('NAME.adjustments',0,2,2,NULL);
INSERT INTO positions VALUES('NAME.adjustments',1,0,0,NULL);
INSERT INTO positions VALUES('NAME.orders',0,7,7,NULL);
INSERT INTO positions VALUES('NAME.orders',1,4,4,NULL);
CREATE TABLE topic_incarnations (
    topic     TEXT    NOT NULL,
    partition INTEGER NOT NULL,
    from_seq  INTEGER NOT NULL,      -- from this ledger sequence on, up to the next line of the partition
    topic_id  TEXT    NOT NULL,      -- Kafka's id of the topic
    PRIMARY KEY (topic, partition, from_seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE ledger_group (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1), -- one line at most
    name     TEXT    NOT NULL
) STRICT;
INSERT INTO ledger_group VALUES(1,'NAME');
CREATE INDEX holds_by_expiry ON holds (expires_at);
CREATE INDEX decisions_of_orders ON decisions (detail ->> '$.order_id') WHERE kind IN (3, 4, 6);
COMMIT;
