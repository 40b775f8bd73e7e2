//! Between the members of a crew: what belongs to another one goes to it, what others hand over is handled.

use super::Engine;
use crate::crew::Membership;

impl Engine {
    /// Makes the worker a member of a crew. All ports of the crew are there, in the crew's order.
    pub fn join(&mut self, membership: Membership) {
        self.crew = Some(Box::new(membership));
    }
}
