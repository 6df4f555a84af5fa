//! States are sealed.

trait State {}

struct Mine;

impl State for Mine {}

fn main() {}
