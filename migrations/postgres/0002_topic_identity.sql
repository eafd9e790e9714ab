-- Positions know which topic they are of, and how far its results are published; the ledger knows its group.

ALTER TABLE positions ADD COLUMN published_offset bigint;
ALTER TABLE positions ADD COLUMN topic_id text COLLATE "C";

COMMENT ON COLUMN positions.published_offset IS 'Every result of records below it is known to be published; null where an earlier version wrote the position.';
COMMENT ON COLUMN positions.topic_id         IS 'Kafka''s id of the topic, which a topic made anew under the same name does not have; null where it is not known.';

CREATE TABLE topic_incarnations (
    from_seq  bigint  NOT NULL,
    partition integer NOT NULL,
    topic     text    COLLATE "C" NOT NULL,
    topic_id  text    COLLATE "C" NOT NULL,
    PRIMARY KEY (topic, partition, from_seq)
);

COMMENT ON TABLE  topic_incarnations           IS 'Which topic of a name a partition''s decisions are of: those of two share offsets.';
COMMENT ON COLUMN topic_incarnations.from_seq  IS 'From this ledger sequence on (decisions.seq), up to the next line of the partition.';
COMMENT ON COLUMN topic_incarnations.partition IS 'Source partition.';
COMMENT ON COLUMN topic_incarnations.topic     IS 'Source topic.';
COMMENT ON COLUMN topic_incarnations.topic_id  IS 'Kafka''s id of the topic.';

CREATE TABLE ledger_group (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    name     text    COLLATE "C" NOT NULL
);

COMMENT ON TABLE  ledger_group          IS 'The consumer group that this ledger is of: a second one would publish every result again.';
COMMENT ON COLUMN ledger_group.only_one IS 'There is one line at most.';
COMMENT ON COLUMN ledger_group.name     IS 'The group''s name.';
