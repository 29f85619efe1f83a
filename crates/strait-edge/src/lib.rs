//! strait-edge
