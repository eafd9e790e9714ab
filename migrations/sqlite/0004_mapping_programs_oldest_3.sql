-- As migrations/postgres/0004_mapping_programs_oldest_3.sql says.

-- Which program reads a partition's records; a partition without a line was never read by one.
CREATE TABLE mapping_programs (
    topic       TEXT    NOT NULL,
    partition   INTEGER NOT NULL,
    from_offset INTEGER NOT NULL,    -- from this record on, up to the next line of the partition
    program     TEXT,                -- the program's text; null where records are read as they are
    PRIMARY KEY (topic, partition, from_offset)
) STRICT, WITHOUT ROWID;
