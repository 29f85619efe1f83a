//! strait-node
