//! strait-mux
