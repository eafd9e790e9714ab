//! Which partition a key belongs to.

#![expect(unsafe_code, reason = "rdkafka has no safe call for it; the block says why it is sound")]

use std::ptr;

use rdkafka::bindings as native;

/// The partition of a key among so many, as Kafka's own clients choose it (murmur2; librdkafka's `murmur2_random`), so
/// that a record stands beside those of the same key.
#[must_use]
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    // A remainder by none is no number.
    let partitions = partitions.max(1);
    // Sound because librdkafka's function reads the key's bytes, which live through the call, and nothing else: it is
    // arithmetic, and looks at none of the pointers that are null here.
    unsafe {
        native::rd_kafka_msg_partitioner_murmur2(
            ptr::null(),
            key.as_ptr().cast(),
            key.len(),
            partitions,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    }
}

/// The same as librdkafka's own default chooses it (CRC-32; `consistent_random`).
#[must_use]
pub fn crc32_partition_of(key: &[u8], partitions: i32) -> i32 {
    let partitions = partitions.max(1);
    // Sound as above.
    unsafe {
        native::rd_kafka_msg_partitioner_consistent(
            ptr::null(),
            key.as_ptr().cast(),
            key.len(),
            partitions,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_partition_that_kafkas_java_client_gives_it() {
        // From the tests of Kafka's own Utils.murmur2, made positive.
        let hashes: [(&str, i32); 4] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
        ];
        for (key, hash) in hashes {
            assert_eq!(partition_of(key.as_bytes(), 12), (hash & i32::MAX) % 12, "{key}");
            assert_eq!(partition_of(key.as_bytes(), 1), 0);
        }
    }
}
