function used() {
  return 'used';
}
function unused() {
  return 'never called';
}
document.title = `Coverage ${used()}`;
