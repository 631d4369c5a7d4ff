//! tower-oauth and its peers on one course: what a cached token costs, and what a crowd does to the
//! token endpoint.
//!
//! It writes the tables of the page on performance, and the plot beside it.

mod contestants;
mod endpoint;
mod measure;
mod report;
mod request;

use std::path::Path;

use contestants::{
    AddAuthorization, Azure, Bare, BareAzure, BareSmithy, Contestant, Google, HeldMutex, Huskarl,
    Middle, ReadWriteLock, Smithy, Toolkit, TowerOAuth,
};
use measure::Racer;
use report::{Report, Row};
use request::Error;
use tokio::runtime::{Builder, Runtime};

fn main() -> Result<(), Error> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut course = Course {
        runtime: &runtime,
        racers: Vec::new(),
        rows: Vec::new(),
    };
    course.enter::<Bare>()?;
    course.enter::<BareSmithy>()?;
    course.enter::<BareAzure>()?;
    course.enter::<AddAuthorization>()?;
    course.enter::<TowerOAuth>()?;
    course.enter::<ReadWriteLock>()?;
    course.enter::<HeldMutex>()?;
    course.enter::<Middle>()?;
    course.enter::<Huskarl>()?;
    course.enter::<Toolkit>()?;
    course.enter::<Smithy>()?;
    course.enter::<Google>()?;
    course.enter::<Azure>()?;

    let report = course.report()?;
    print!(
        "{}\n{}\n{}",
        report.run()?,
        report.cached(),
        report.crowds()
    );
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    report.write(
        &package.join("../../src/docs/performance.md"),
        &package.join("plot.svg"),
    )
}

struct Course<'a> {
    runtime: &'a Runtime,
    racers: Vec<Box<dyn Racer + 'a>>,
    rows: Vec<Row>,
}

impl<'a> Course<'a> {
    fn enter<C: Contestant>(&mut self) -> Result<(), Error> {
        eprintln!("{}", C::NAME);
        let context = |error| Error::from(format!("{}: {error}", C::NAME));
        let crowd = self
            .runtime
            .block_on(measure::crowd::<C>())
            .map_err(context)?;
        self.rows.push(Row::new::<C>(crowd));
        self.racers
            .push(measure::racer::<C>(self.runtime).map_err(context)?);
        Ok(())
    }

    fn report(mut self) -> Result<Report, Error> {
        eprintln!("all of them, with a cached token");
        let cached = measure::race(&mut self.racers)?;
        Report::new(self.rows.into_iter().zip(cached).collect())
    }
}
