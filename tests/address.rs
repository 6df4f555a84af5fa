//! Address handles: how they are made, what they keep together, and when they may go.
