//! What a program may take, in time and in depth.
//!
//! A jq program cannot be broken off from outside, and may run for ever. But jaq asks for the program's terms anew for each
//! step, through a type of the caller's: that is where this looks at the clock and at the stack. What is broken off there
//! is unwound, and what it had is dropped on the way.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use jaq_core::data::HasLut;
use jaq_core::{DataT, Lut};
use jaq_json::Val;

/// Most stack that a program takes, in bytes. A thread of tokio has 2 MiB.
const STACK_LIMIT: usize = 768 * 1024;
/// Steps between two looks at the clock: some microseconds.
const STEPS: u32 = 256;

/// What programs work with: JSON, and somebody who watches.
pub(super) struct JqData;

impl DataT for JqData {
    type V<'a> = Val;
    type Data<'a> = &'a Watch<'a>;
}

/// Why a program was broken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// It took too long.
    TooSlow,
    /// It called itself too deeply.
    TooDeep,
}

/// Watches one run of a program.
pub(super) struct Watch<'a> {
    program: &'a Lut<JqData>,
    until: Instant,
    steps: Cell<u32>,
    /// Where the stack was when it began.
    stack: usize,
}

impl<'a> Watch<'a> {
    /// Begins to watch.
    pub(super) fn new(program: &'a Lut<JqData>, limit: Duration) -> Self {
        Self { program, until: Instant::now() + limit, steps: Cell::new(0), stack: stack_position() }
    }

    fn look(&self) {
        if self.stack.abs_diff(stack_position()) > STACK_LIMIT {
            // Not by panic!, whose hook would write to the log.
            resume_unwind(Box::new(Broken::TooDeep));
        }
        let steps = self.steps.get().wrapping_add(1);
        self.steps.set(steps);
        if steps.is_multiple_of(STEPS) && Instant::now() > self.until {
            resume_unwind(Box::new(Broken::TooSlow));
        }
    }
}

impl<'a> HasLut<'a, JqData> for &'a Watch<'a> {
    fn lut(&self) -> &'a Lut<JqData> {
        self.look();
        self.program
    }
}

/// Where the stack is now: the address of something on it.
#[inline(never)]
fn stack_position() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(std::hint::black_box(&here)).addr()
}
