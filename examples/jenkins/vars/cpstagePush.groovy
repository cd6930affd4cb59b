/**
 * Uploads what is in out/, as in: cpstagePush(['AppBuild=dist', '--format', 'tar.gz']).
 *
 * @param options more options of 'cpstage push'
 */
void call(List<String> options = []) {
    cpstage(['push'] + options)
}
