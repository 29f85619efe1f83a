//! What tests of this workspace share: so far the backend and the load generator of
//! `testkit-load`, which the tests with real clients run beside the program.
