//! What the group calls a member: an id that somebody who joins anew does not have.
//!
//! librdkafka knows it (`rd_kafka_memberid`), rdkafka does not offer it.

#![expect(unsafe_code, reason = "rdkafka has no safe call for it; each block says why it is sound")]

use std::ffi::CStr;

use rdkafka::bindings as native;
use rdkafka::client::{Client, ClientContext};

/// The id under which the group knows a consumer now; empty while it does not.
#[must_use]
pub(super) fn member_id<C: ClientContext>(client: &Client<C>) -> String {
    let client = client.native_ptr();
    // Sound because `client` is a live handle for as long as it is borrowed here.
    let id = unsafe { native::rd_kafka_memberid(client) };
    if id.is_null() {
        return String::new();
    }
    // Sound because what is not null is a string that ends with a zero, and ours until it is freed below.
    let text = unsafe { CStr::from_ptr(id) }.to_string_lossy().into_owned();
    // Sound because librdkafka allocated it, and nobody has it any more: the text is a copy.
    unsafe { native::rd_kafka_mem_free(client, id.cast()) };
    text
}
