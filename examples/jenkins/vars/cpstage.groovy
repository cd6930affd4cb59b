/**
 * Runs one command of cpstage, as in: cpstage(['show', '--json']).
 *
 * The job and the directory come from CPSTAGE_JOB_ID and CPSTAGE_WORKSPACE.
 *
 * @param arguments the command and its arguments
 * @param returnStatus whether an exit code other than 0 is returned, and no error
 */
Integer call(List<String> arguments, boolean returnStatus = false) {
    return sh(label: "cpstage ${arguments[0]}", script: line(arguments), returnStatus: returnStatus)
}

/**
 * Returns a command of cpstage as a line for sh. Every argument is quoted: the shell expands
 * nothing in it.
 */
String line(List<String> arguments) {
    if (!isUnix()) {
        error 'cpstage stages jobs on Unix agents alone: choose another label, or use WSL'
    }
    String quoted = 'cpstage'
    for (String argument : arguments) {
        quoted += " '" + argument.replace("'", "'\\''") + "'"
    }
    return quoted
}
