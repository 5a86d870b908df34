//! What a ratio is worth on this machine: nginx held to nginx, in the same run and in the same way as an engine.
//!
//! Invariant: nothing is measured for it; it uses the runs that engines are compared with.

use super::{Cell, Run};
use crate::median;
use serde::Serialize;

/// Of the cells' medians, the 10th and the 90th percentile. Were the machine quiet, all would be 1.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Noise {
    pub cells: usize,
    pub wall: [f64; 2],
    pub cpu: [f64; 2],
    pub p99: [f64; 2],
}

impl Noise {
    /// `None` where no cell has runs enough.
    #[must_use]
    pub fn of(cells: &[Cell]) -> Option<Self> {
        let medians: Vec<[f64; 3]> = cells.iter().filter_map(of_nginx).collect();
        if medians.is_empty() {
            return None;
        }
        let range = |pick: usize| {
            let mut values: Vec<f64> = medians.iter().map(|cell| cell[pick]).collect();
            values.sort_by(f64::total_cmp);
            let tenth = values.len() / 10;
            [values[tenth], values[values.len() - 1 - tenth]]
        };
        Some(Self { cells: medians.len(), wall: range(0), cpu: range(1), p99: range(2) })
    }

    /// A line for people.
    #[must_use]
    pub fn render(&self) -> String {
        let range = |[low, high]: [f64; 2]| format!("{low:.2} to {high:.2}");
        format!(
            "nginx by itself, medians of {} cells, 10th to 90th percentile: wall {}, CPU {}, p99 {}",
            self.cells,
            range(self.wall),
            range(self.cpu),
            range(self.p99)
        )
    }
}

/// Wall, CPU and p99 of as many of nginx's runs as an engine has, each by those right before and after it.
fn of_nginx(cell: &Cell) -> Option<[f64; 3]> {
    let rounds = cell.engines.values().map(Vec::len).max()?;
    let between = (1..cell.nginx.len().checked_sub(1)?).step_by(cell.engines.len());
    let runs: Vec<Run> = between
        .take(rounds)
        .map(|at| Run::between(cell.nginx[at - 1], cell.nginx[at], cell.nginx[at + 1]))
        .collect();
    let of = |pick: fn(&Run) -> f64| median(&runs.iter().map(pick).collect::<Vec<_>>());
    (!runs.is_empty()).then(|| [of(|run| run.wall), of(|run| run.cpu), of(|run| run.p99)])
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn one_nginx_run_a_round_is_held_to_its_neighbours() {
        let run = Run::between(sample(1.0), sample(1.0), sample(1.0));
        let engines = [("io_uring", vec![run; 2]), ("portable", vec![run; 2])];
        let engines: BTreeMap<_, _> =
            engines.into_iter().map(|(name, runs)| (name.to_owned(), runs)).collect();
        let nginx = [2.0, 3.0, 4.0, 8.0, 4.0].map(sample).to_vec();
        let (network, piece_bytes, connections, window_millis) = ("lo".to_owned(), 1 << 20, 4, 600);
        let cell = Cell { network, piece_bytes, connections, window_millis, nginx, engines };
        // 3 between 2 and 4; 8 between 4 and 4.
        let noise = Noise::of(std::slice::from_ref(&cell)).unwrap();
        assert_eq!((noise.cells, noise.wall), (1, [1.5, 1.5]));
        let alone = Cell { nginx: vec![sample(1.0); 2], ..cell };
        assert!(Noise::of(&[alone]).is_none());
    }
}
