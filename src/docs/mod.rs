//! Longer pages.

#[doc = include_str!("rules.md")]
pub mod rules {}

#[doc = include_str!("ordering.md")]
pub mod ordering {}

#[doc = include_str!("outage.md")]
pub mod outage {}

#[doc = include_str!("failure.md")]
pub mod failure {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("limitations.md")]
pub mod limitations {}

#[doc = include_str!("interop.md")]
pub mod interop {}

#[doc = include_str!("../../CHANGELOG.md")]
pub mod changelog {}
