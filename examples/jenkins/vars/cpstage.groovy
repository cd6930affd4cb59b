/**
 * Runs one command of cpstage, as in: cpstage(['show', '--json']).
 *
 * The job and the directory come from CPSTAGE_JOB_ID and CPSTAGE_WORKSPACE. Every argument is
 * quoted: the shell expands nothing in it.
 *
 * @param arguments the command and its arguments
 * @param returnStatus whether an exit code other than 0 is returned, and no error
 */
Integer call(List<String> arguments, boolean returnStatus = false) {
    if (!isUnix()) {
        error 'cpstage stages jobs on Unix agents alone: choose another label, or use WSL'
    }
    String line = 'cpstage'
    for (String argument : arguments) {
        line += " '" + argument.replace("'", "'\\''") + "'"
    }
    return sh(label: "cpstage ${arguments[0]}", script: line, returnStatus: returnStatus)
}
