//! Router, load balancer, NAT and firewall in one chain, in a simulation.
//!
//! * `reach`: who reaches whom, and as whom;
//! * `replay`: with and without the flow table, the same input gives the same packets, drops and counters.

mod frame;
mod reach;
mod replay;
mod site;
mod traffic;
