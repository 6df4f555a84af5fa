//! What the device can do is what `abilities.md` says that it must be able to do: no test is skipped unseen.

use ibverbs_tests::{column, test_context, Ability};

const TABLE: &str = include_str!("abilities.md");

/// The cells of a line of the table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inside = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inside.split('|').map(str::trim).collect())
}

/// The lines of the table: the first has the devices, the others an ability each.
fn table() -> (Vec<&'static str>, Vec<Vec<&'static str>>) {
    let mut lines = TABLE.lines().filter_map(cells);
    let head = lines.next().expect("there is a table");
    let rows = lines.filter(|cells| !cells.iter().all(|cell| cell.chars().all(|c| c == '-')));
    (head, rows.collect())
}

#[test]
fn the_device_can_do_what_the_table_says() {
    let ctx = test_context();
    let (head, rows) = table();
    let told = Ability::ALL.iter().map(|ability| (ability.name(), ability.is_of(&ctx)));
    let told: Vec<_> = told.collect();
    let column = column(&ctx);
    let asked: String = told
        .iter()
        .map(|(name, can)| format!("| {name} | {} |\n", if *can { "yes" } else { "no" }))
        .collect();
    let Some(place) = head.iter().position(|device| *device == column) else {
        panic!("tests/abilities.md has no device `{column}`. It says of itself:\n{asked}");
    };
    for (name, can) in told {
        let row = rows.iter().find(|row| row[0] == name).expect("a line for each ability");
        let expected = if can { "yes" } else { "no" };
        assert_eq!(row[place], expected, "{column}: {name}. All that it says:\n{asked}");
    }
}

#[test]
fn the_table_has_every_ability_once_and_nothing_else() {
    let (head, rows) = table();
    assert!(rows.iter().map(|row| row[0]).eq(Ability::ALL.iter().map(|ability| ability.name())));
    for row in rows {
        assert_eq!(row.len(), head.len(), "{row:?}");
        assert!(row[1..].iter().all(|cell| ["yes", "no"].contains(cell)), "{row:?}");
    }
}
