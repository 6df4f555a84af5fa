//! Transports are sealed.

trait Transport {}

struct Mine;

impl Transport for Mine {}

fn main() {}
