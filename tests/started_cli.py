"""The command line in a process of its own, with the graphs that the tests keep."""

from graph_cache import graphs_of_environment

from anatomy_export.cli import main

if __name__ == "__main__":
    graphs_of_environment()
    main()
