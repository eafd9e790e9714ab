-- The columns mean what migrations/postgres/0002_topic_identity.sql says of them.

ALTER TABLE positions ADD COLUMN published_offset INTEGER; -- below it every result is known to be published; null: unknown
ALTER TABLE positions ADD COLUMN topic_id TEXT;            -- Kafka's id of the topic; null: unknown

-- Which topic of a name a partition's decisions are of: those of two share offsets.
CREATE TABLE topic_incarnations (
    topic     TEXT    NOT NULL,
    partition INTEGER NOT NULL,
    from_seq  INTEGER NOT NULL,      -- from this ledger sequence on, up to the next line of the partition
    topic_id  TEXT    NOT NULL,      -- Kafka's id of the topic
    PRIMARY KEY (topic, partition, from_seq)
) STRICT, WITHOUT ROWID;

-- The consumer group that this ledger is of: a second one would publish every result again.
CREATE TABLE ledger_group (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1), -- one line at most
    name     TEXT    NOT NULL
) STRICT;
