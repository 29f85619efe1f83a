// What is in flight on the stream: shown only where somebody knows.
export function watchFlight() {}
