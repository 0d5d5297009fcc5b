"""A simulated fleet for real controllers: `make fleet`.

`sterna controller` processes, nats-server and the database are real. The hosts are simulated: one process speaks
the protocol of their agents.

    made.py       the fleet, from a seed
    truth.py      which QEMU runs where, and every change of it
    links.py      copies that share links
    audit.py      judges a run by truth.py, without any of the product's code
    journal.py, host.py, answers.py, outgoing.py, incoming.py, crowd.py    the simulated agents
    processes.py, driver.py, scenarios.py    a run
    report.py, pictures.py    what is shown of it
"""
