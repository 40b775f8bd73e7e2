//! Router, load balancer, NAT and firewall in one chain, in a simulation.
//!
//! * `reach`: who reaches whom, and as whom;
//! * `replay`: with and without the flow table, the same input gives the same packets, drops and counters;
//! * `worlds`: the same for a million packets through random chains;
//! * `crew`: and the same by one worker and by several.

mod crew;
mod frame;
mod host;
mod reach;
mod replay;
mod site;
mod traffic;
mod worlds;
