# What developers do most; CI calls `.ci/run`.

# everything that has to hold before a change lands
check:
    .ci/run

# all tests, with nextest where it is installed
test *arguments:
    cargo nextest run {{arguments}} || cargo test {{arguments}}

# the long versions of the tests that repeat: a thousand kills, ten thousand purchases
long:
    RECOUP_KILLS=1000 RECOUP_PURCHASES=10000 cargo test --locked --test service -- --nocapture random

# a proof by eighty thousand simulated histories, and the table of docs/PERFORMANCE.md
simulate:
    cargo run --release --locked --bin sim -- seeds 80000
    cargo run --release --locked --bin sim -- table

# watch lost videos come back
demo *arguments:
    cargo run --release -- demo {{arguments}}

# durable webhooks beside what bounds them and what one would write instead, on an empty file and on big ones; writes the tables of
# docs/PERFORMANCE.md (needs wrk and oha; what the others need is fetched; takes half an hour and 5 GB)
bench:
    cargo build --release --locked
    benches/ingest.py target/release/recoup --rates 4000,12000 --into docs/PERFORMANCE.md
    benches/big.py target/release/recoup --rows 1000000 --into docs/PERFORMANCE.md
    benches/big.py target/release/recoup --rows 10000000 --into docs/PERFORMANCE.md

# what is measured, against the release binary (README of each in its head)
measure what *arguments:
    cargo build --release && benches/{{what}}.py target/release/recoup {{arguments}}

# bring the sources into shape
fix:
    cargo clippy --fix --all-targets --allow-dirty
    cargo fmt

# the binary with wrong behaviours that can be named: what the proofs must fail on
planted:
    cargo build --locked --features planted
    mkdir -p target/planted && cp target/debug/recoup target/debug/sim target/planted/

# every promise proved on the real binary, into docs/RELIABILITY.md (under two hours)
proof *arguments: planted
    cargo build --release --locked
    proof/run --into docs/RELIABILITY.md {{arguments}}

# how many wrong versions of the rules their tests notice
mutants *arguments:
    proof/mutants {{arguments}}

# the budget of status reads in every order of its threads
orders *arguments:
    proof/orders {{arguments}}

# the container image
image tag="recoup":
    docker build --tag {{tag}} .

# the bill of materials of what is linked (needs `cargo install cargo-cyclonedx`)
sbom:
    cargo cyclonedx --format json
