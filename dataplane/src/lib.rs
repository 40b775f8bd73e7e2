//! Packets, batches, flow records, ports, workers, counters.
