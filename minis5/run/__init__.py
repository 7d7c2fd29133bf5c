"""From a name to a folder of results: the command line and the code that it runs.

In the order in which to read them:

    presets      hyper-parameters by name; options given as text become configurations
    config       RunConfig: everything that a run was asked for, resolved once (config.json)
    split        how many processes a run has
    train        train and resume a run; the content of its folder
    folder       the folder's name, and the one process that may write into it
    learn        one process's part of a run
    callbacks    what is told of a run while it trains; the next two rows are callbacks
    progress     progress.csv; progress_line the line on the screen
    trackers     TensorBoard, Weights & Biases
    stop_signals Ctrl-C and SIGTERM
    state_file   state.npz: the state of a run, from which it is resumed bit for bit
    trust        whether code that a run's files name may be run
    evaluate     returns of fresh episodes, without bias
    evaluations  those on the way, and the best agent in them
    kept         an agent in one file, with its run's settings
    plot         learning curves
    watch        episodes step by step: words for games, drawings for control tasks
    weights      agents from and for other people's programs
    machine      versions of the libraries, the processor, the CPUs, the GPU
    cli, parser  the command line and its one-line errors
    commands     the functions behind the commands; summaries has a line on each
    train_command, other_names  the arguments of train; what other libraries call them
    config_file  these arguments from a file
    envs_command the table of environments; completion writes a script for Tab
    blame        whose code an error comes from
    console      stdout and stderr in any condition: closed, full, ASCII only
    bench        the library's speed on this machine; profile says where its time goes
    verify       test vectors, and checks of other people's code (../verify)
"""
