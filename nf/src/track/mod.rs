//! What the stateful functions share: whose packet it is, what TCP's flags say of a connection, which packet an
//! ICMP error is about, and how long silence may last.

mod absence;
mod quote;
mod tcp;
#[cfg(test)]
pub(crate) mod testing;
mod timeouts;
mod tuple;

pub use absence::Absence;
pub use quote::{Quote, is_icmp_error, quote};
pub use tcp::{Phase, opens};
pub use timeouts::{TimeoutTicks, Timeouts, check_sessions};
pub use tuple::{Endpoint, Tuple};
pub(crate) use tuple::{ipv6_of, pack_kind, unpack_kind, words};
