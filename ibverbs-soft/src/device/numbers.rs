//! Numbers that a peer names things by: random, so that packets for a dead process do not fit the one that comes after it.

use slab::Slab;

use crate::random::Random;

/// Things by numbers of `BITS` bits. A number is the thing's place in the lower `PLACE` bits and a tag that is new for each thing
/// in the others, all of it mixed with a number that is the process's own.
#[derive(Debug)]
pub(crate) struct Numbered<T, const BITS: u32, const PLACE: u32> {
    things: Slab<(u32, T)>,
    random: Random,
    mask: u32,
}

impl<T, const BITS: u32, const PLACE: u32> Numbered<T, BITS, PLACE> {
    const ALL: u32 = u32::MAX >> (32 - BITS);
    const PLACES: u32 = (1 << PLACE) - 1;

    pub(crate) fn new() -> Self {
        let mut random = Random::new();
        let mask = random.next() as u32 & Self::ALL;
        Numbered { things: Slab::new(), random, mask }
    }

    pub(crate) fn len(&self) -> usize {
        self.things.len()
    }

    /// Takes in what `make` makes of the number under which it will be, and returns the number; nothing if all places are taken.
    /// `is_reserved` must be false for some tags at every place.
    pub(crate) fn insert(
        &mut self,
        is_reserved: impl Fn(u32) -> bool,
        make: impl FnOnce(u32) -> T,
    ) -> Option<u32> {
        if self.len() > Self::PLACES as usize {
            return None;
        }
        let entry = self.things.vacant_entry();
        let number = loop {
            let tag = (self.random.next() as u32) << PLACE;
            let number = ((tag | entry.key() as u32) ^ self.mask) & Self::ALL;
            if !is_reserved(number) {
                break number;
            }
        };
        entry.insert((number, make(number)));
        Some(number)
    }

    fn place(&self, number: u32) -> usize {
        ((number ^ self.mask) & Self::PLACES) as usize
    }

    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        let (it, thing) = self.things.get(self.place(number))?;
        (*it == number).then_some(thing)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let place = self.place(number);
        let (it, thing) = self.things.get_mut(place)?;
        (*it == number).then_some(thing)
    }

    /// The numbers of all things.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.things.iter().map(|(_, (number, _))| *number).collect()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.things.iter_mut().map(|(_, (_, thing))| thing)
    }

    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        self.get(number)?;
        Some(self.things.remove(self.place(number)).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_it_took_in_by_its_number_only() {
        let mut things = Numbered::<usize, 24, 6>::new();
        let numbers: Vec<u32> = (0..64).map(|i| things.insert(|_| false, |_| i).unwrap()).collect();
        assert_eq!(things.insert(|_| false, |_| 64), None);
        assert_eq!(things.len(), 64);
        for (i, &number) in numbers.iter().enumerate() {
            assert!(number < 1 << 24);
            assert_eq!(things.get(number), Some(&i));
            assert_eq!(things.get(number ^ (1 << 23)), None);
            assert_eq!(things.get(number | (1 << 24)), None);
        }
        assert_eq!(things.remove(numbers[5]), Some(5));
        assert_eq!((things.remove(numbers[5]), things.get_mut(numbers[5])), (None, None));
        let next = things.insert(|number| number == numbers[5], |_| 65).unwrap();
        assert_eq!((things.get(next), things.get(numbers[5])), (Some(&65), None));
    }

    #[test]
    fn numbers_differ_from_table_to_table() {
        let numbers = |_| {
            let mut things = Numbered::<(), 24, 14>::new();
            [(); 8].map(|()| things.insert(|_| false, |_| ()).unwrap())
        };
        let tables: Vec<[u32; 8]> = (0..4).map(numbers).collect();
        assert!(tables.windows(2).all(|two| two[0] != two[1]), "{tables:x?}");
    }

    #[test]
    fn reserved_numbers_are_not_given() {
        let mut things = Numbered::<u32, 24, 14>::new();
        for _ in 0..1000 {
            let number = things.insert(|number| number < 1 << 23, |number| number).unwrap();
            assert!(number >= 1 << 23);
            assert_eq!(things.get(number), Some(&number));
        }
    }
}
