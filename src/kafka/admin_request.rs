//! Questions to Kafka that librdkafka can ask and rdkafka does not offer: how any of them is asked and its answer had.
//!
//! Everything librdkafka gives is owned by an [`Owned`] from the moment it is given, so that every way out frees it;
//! nothing borrowed from an answer may leave the function that reads it.

#![expect(unsafe_code, reason = "rdkafka has no safe call for it; each block says why it is sound")]

use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

/// librdkafka itself says when the limit is over; a little longer than that, in milliseconds, its word is waited for.
const SLACK_MS: i32 = 200;

/// Why Kafka's answer is not known. Asking again may help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Kafka does not say which topics there are: {0}")]
pub struct NoAnswer(pub(super) String);

impl NoAnswer {
    /// With this reason.
    pub(super) fn new(why: &dyn fmt::Display) -> Self {
        Self(why.to_string())
    }

    /// The reason alone.
    pub(super) fn why(&self) -> &str {
        &self.0
    }
}

/// Something of librdkafka's that must be given back.
pub(super) struct Owned<T> {
    at: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// Owns what librdkafka gave; `None` when it gave nothing.
    ///
    /// # Safety
    /// `given` is null, or `free` may be called on it once, and nobody else will.
    pub(super) unsafe fn new(given: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        NonNull::new(given).map(|at| Self { at, free })
    }

    pub(super) fn ptr(&self) -> *mut T {
        self.at.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: promised by whoever called `new`; a value is dropped once.
        unsafe { (self.free)(self.at.as_ptr()) }
    }
}

/// How something is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    /// What is asked.
    pub(super) kind: native::rd_kafka_admin_op_t,
    /// Whom; `None` for whomever librdkafka thinks right.
    pub(super) broker: Option<i32>,
    /// What is asked besides.
    pub(super) also: Option<Also>,
}

/// What a question may ask besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Also {
    /// What this user may do.
    Operations,
    /// Whether an open transaction has offsets: each that one has is answered with an error.
    OpenTransactions,
}

impl Question {
    /// Asks, by the function of librdkafka that `send` calls with the client, the options and the queue for the answer.
    /// All three live as long as that call. Blocks for little longer than `limit`.
    ///
    /// # Errors
    /// [`NoAnswer`] when there is none within `limit`, or the question is refused as a whole.
    pub(super) fn ask<C: ClientContext>(
        self,
        client: &Client<C>,
        limit: Duration,
        send: impl FnOnce(
            *mut native::rd_kafka_t,
            *const native::rd_kafka_AdminOptions_t,
            *mut native::rd_kafka_queue_t,
        ),
    ) -> Result<Owned<native::rd_kafka_event_t>, NoAnswer> {
        let unaskable = || NoAnswer::new(&"the question cannot be asked");
        let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1);
        let rk = client.native_ptr();
        // SAFETY: `rk` is a client that lives as long as `client` is borrowed. The options are ours to free.
        let options = unsafe {
            Owned::new(
                native::rd_kafka_AdminOptions_new(rk, self.kind),
                native::rd_kafka_AdminOptions_destroy,
            )
        };
        let options = options.ok_or_else(unaskable)?;
        // SAFETY: the options live. No room for words is given, and none is claimed: the code says enough.
        let set = unsafe {
            native::rd_kafka_AdminOptions_set_request_timeout(options.ptr(), limit_ms, ptr::null_mut(), 0)
        };
        check(set).map_err(|error| NoAnswer::new(&error))?;
        if let Some(broker) = self.broker {
            // SAFETY: as before.
            let set = unsafe {
                native::rd_kafka_AdminOptions_set_broker(options.ptr(), broker, ptr::null_mut(), 0)
            };
            check(set).map_err(|error| NoAnswer::new(&error))?;
        }
        if let Some(also) = self.also {
            // SAFETY: the options live. The error, if any, is ours to free.
            let refused = unsafe {
                let set = match also {
                    Also::Operations => native::rd_kafka_AdminOptions_set_include_authorized_operations,
                    Also::OpenTransactions => native::rd_kafka_AdminOptions_set_require_stable_offsets,
                };
                Owned::new(set(options.ptr(), 1), native::rd_kafka_error_destroy)
            };
            if refused.is_some() {
                return Err(unaskable());
            }
        }
        // SAFETY: `rk` lives. The queue is ours to free; when that is before the answer came, librdkafka frees the answer.
        let queue = unsafe { Owned::new(native::rd_kafka_queue_new(rk), native::rd_kafka_queue_destroy) };
        let queue = queue.ok_or_else(unaskable)?;
        send(rk, options.ptr(), queue.ptr());
        // SAFETY: the queue lives, and no other thread polls it. The event is ours to free.
        let event = unsafe {
            Owned::new(
                native::rd_kafka_queue_poll(queue.ptr(), limit_ms.saturating_add(SLACK_MS)),
                native::rd_kafka_event_destroy,
            )
        };
        let event = event.ok_or_else(|| NoAnswer::new(&format_args!("no answer within {limit:?}")))?;
        // SAFETY: the event lives.
        check(unsafe { native::rd_kafka_event_error(event.ptr()) }).map_err(|error| NoAnswer::new(&error))?;
        Ok(event)
    }
}

/// Names as librdkafka takes them.
pub(super) fn c_names(names: &[&str]) -> Result<Vec<CString>, NoAnswer> {
    names
        .iter()
        .map(|name| CString::new(*name))
        .collect::<Result<_, _>>()
        .map_err(|error| NoAnswer::new(&error))
}

/// A text of librdkafka's; empty where there is none.
///
/// # Safety
/// `text` is null, or ends with a zero and lives as long as this call.
pub(super) unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: promised by the caller.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The entries of a list of partitions; none where there is no list.
///
/// # Safety
/// `list` is null, or lives unchanged for `'a`.
pub(super) unsafe fn entries<'a>(
    list: *const native::rd_kafka_topic_partition_list_t,
) -> &'a [native::rd_kafka_topic_partition_t] {
    // SAFETY: promised by the caller; a list has as many entries as it says.
    unsafe {
        if list.is_null() || (*list).elems.is_null() {
            return &[];
        }
        std::slice::from_raw_parts((*list).elems.cast_const(), usize::try_from((*list).cnt).unwrap_or(0))
    }
}

/// Whether a code is none of an error.
pub(super) fn check(code: native::rd_kafka_resp_err_t) -> Result<(), RDKafkaErrorCode> {
    match RDKafkaErrorCode::from(code) {
        RDKafkaErrorCode::NoError => Ok(()),
        error => Err(error),
    }
}

/// What Kafka says that this user may do with a topic or a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Operations(u32);

/// Something that may be allowed, under Kafka's number of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Operation {
    /// Reading.
    Read = native::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ as u32,
    /// Writing.
    Write = native::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE as u32,
    /// Reading its settings.
    DescribeConfigs = native::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS as u32,
}

impl Operations {
    /// These.
    #[must_use]
    pub fn of(operations: &[Operation]) -> Self {
        Self(operations.iter().fold(0, |bits, operation| bits | 1 << (*operation as u32)))
    }

    /// Whether this is among them.
    #[must_use]
    pub fn has(self, operation: Operation) -> bool {
        let all = native::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_ALL as u32;
        self.0 & (1 << all | 1 << (operation as u32)) != 0
    }

    /// Reads librdkafka's list; `None` where Kafka did not say.
    ///
    /// # Safety
    /// `list` is null, or has `count` entries that live as long as this call.
    pub(super) unsafe fn read(list: *const native::rd_kafka_AclOperation_t, count: usize) -> Option<Self> {
        if list.is_null() {
            return None;
        }
        // SAFETY: promised by the caller. Read as the numbers they are, so that one that is new means nothing.
        let list = unsafe { std::slice::from_raw_parts(list.cast::<u32>(), count) };
        Some(Self(list.iter().filter(|number| **number < 32).fold(0, |bits, number| bits | 1 << number)))
    }
}
