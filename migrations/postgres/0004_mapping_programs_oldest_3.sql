-- The jq programs that read records (--mapping), with the offsets from which each did: the past is read by what read it then.

CREATE TABLE mapping_programs (
    from_offset bigint  NOT NULL,
    partition   integer NOT NULL,
    topic       text    COLLATE "C" NOT NULL,
    program     text    COLLATE "C",
    PRIMARY KEY (topic, partition, from_offset)
);

COMMENT ON TABLE  mapping_programs             IS 'Which program reads a partition''s records; a partition without a line was never read by one.';
COMMENT ON COLUMN mapping_programs.from_offset IS 'From this record on, up to the next line of the partition.';
COMMENT ON COLUMN mapping_programs.partition   IS 'Source partition.';
COMMENT ON COLUMN mapping_programs.topic       IS 'Source topic.';
COMMENT ON COLUMN mapping_programs.program     IS 'The program''s text; null where records are read as they are.';
